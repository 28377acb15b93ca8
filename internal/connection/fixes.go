package connection

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// What to do about a step that failed, in the words of whoever runs the other
// side.

func fixResolve(err error, e *entry) string {
	if e.MX {
		return "Correct the domain's MX record, or name the server with --host."
	}
	if fault.Is(err, fault.Missing) {
		return "Check the host name: the DNS does not know it, or it has no address."
	}
	return "Check that the DNS can be reached from this machine, then repeat the test."
}

func fixConnect(err error, address string) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Nothing listens on " + address + ": start the server, correct --host or --port, or let its firewall accept us."
	case os.IsTimeout(err):
		return "No answer from " + address + ": open the way in the firewalls between us, or correct --host or --port."
	case errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH):
		return "This machine has no route to " + address + ": correct the routing, or give another host."
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "The source address is none of this machine: correct the egress pool, or give the machine that address."
	}
	return "Check that " + address + " can be reached from this machine."
}

func fixGreeting(d *smtp.DialError, us string) string {
	switch {
	case d == nil:
		return "Check that the server speaks SMTP on this port."
	case d.Step == "dial":
		return "The server takes one connection and not the next: let it accept more of them " + us + "."
	case d.Reply.Code != 0:
		return "The server refuses us before any mail: let it accept connections " + us + "."
	case os.IsTimeout(d.Err):
		return "The server connects and says nothing: it may expect TLS from the first byte (port 465; use its port 25 or 587), or be overloaded."
	}
	return "What answers does not speak SMTP: check host and port."
}

// isRemoteAlert reports an alert that the server sent.
func isRemoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func fixTLS(err error, e *entry, host string) string {
	name := host
	if e.ServerName != "" {
		name = e.ServerName
	}
	var pin *PinError
	var d *smtp.DialError
	switch {
	case errors.As(err, &pin):
		return "The server has another certificate than the one pinned. If that is right, pin the new one: --pin " + pin.Got + "."
	case errors.As(err, &d) && d.Step == "starttls" && d.Reply.Code == 0:
		return "The server does not offer STARTTLS: turn TLS on there, or give --tls opportunistic or none."
	case errors.As(err, &d) && d.Step == "starttls":
		return "The server refuses STARTTLS: give it a certificate and key that it can read."
	case fault.Is(err, fault.Later) && fault.HintOf(err) != "": // of the keeper, not of the server
		return fault.HintOf(err)
	case e.TLS == TLSMutual && strings.Contains(err.Error(), "protocol version"):
		return "The server cannot speak TLS 1.3, without which we show no identity: let it offer TLS 1.3."
	case e.TLS == TLSMutual && isRemoteAlert(err):
		return "The server does not accept our certificate: let it trust the certificate's issuer, and check that it has not expired."
	}
	return fixCertificate(err, name, e.ca != nil)
}

func fixCertificate(err error, name string, ownCA bool) string {
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var bad x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		issuer, trusted := "an issuer that it does not name", "in the system roots"
		if unknown.Cert != nil {
			issuer = unknown.Cert.Issuer.String()
		}
		if ownCA {
			trusted = "by the CA given"
		}
		return fmt.Sprintf("The server's certificate is issued by %s, which is not %s; give its CA with --ca FILE or pin it with --pin %s.", issuer, trusted, leafPin(err))
	case errors.As(err, &hostname):
		has := strings.Join(certNames(hostname.Certificate), ", ")
		return fmt.Sprintf("The server's certificate is for %s, not for %s: give the right name with --server-name, or correct the certificate.", has, name)
	case errors.As(err, &bad) && bad.Reason == x509.Expired:
		until := bad.Cert.NotAfter.UTC().Format(time.DateOnly)
		return fmt.Sprintf("The certificate of %s was good from %s until %s: renew it, and check the clocks.", bad.Cert.Subject, bad.Cert.NotBefore.UTC().Format(time.DateOnly), until)
	case errors.As(err, &bad):
		return "The server's certificate cannot be used for a server: replace it."
	case isRemoteAlert(err):
		return "The server ended the TLS handshake: let it offer TLS 1.2 or 1.3 with a common cipher."
	}
	return "Let the server offer TLS 1.2 or 1.3 on this port."
}

// leafPin is the pin of the certificate that was not verified.
func leafPin(err error) string {
	var v *tls.CertificateVerificationError
	if !errors.As(err, &v) || len(v.UnverifiedCertificates) == 0 {
		return "sha256:HEX"
	}
	return pinOf(v.UnverifiedCertificates[0])
}

// certNames are the names that a certificate is good for.
func certNames(c *x509.Certificate) []string {
	if c == nil {
		return []string{"no name"}
	}
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return []string{"no name"}
	}
	return names
}

func fixAuth(err error, e *entry) string {
	var d *smtp.DialError
	switch {
	case fault.Is(errors.Unwrap(err), fault.Missing):
		return "No password is stored: sallyport credential set " + e.Tenant + " " + e.Name + " --stdin."
	case errors.As(err, &d) && d.Reply.Code == 535:
		return "The server does not accept user " + e.User + " with the stored password: set the right one with credential set."
	case errors.As(err, &d) && d.Reply.Code != 0:
		return "The server refuses AUTH for now: see what it says."
	case fault.HintOf(err) != "":
		return fault.HintOf(err)
	}
	return "Let the server offer AUTH PLAIN or LOGIN within TLS, or give --auth none."
}

func fixNullSender(r mail.Reply) string {
	if r.Temporary() {
		return "The server asks us to come back later: repeat the test in some minutes."
	}
	return "Let the server accept the null sender from this machine: delivery notices and recipient checks need it (RFC 5321 4.5.5)."
}

func fixRecipient(r mail.Reply, rcpt mail.Address, e *entry) string {
	class, _, _ := strings.Cut(strings.TrimPrefix(r.Enhanced, "5."), ".")
	words := strings.ToLower(r.Text)
	switch {
	case r.Temporary():
		return "The server asks us to come back later: repeat the test in some minutes, and exempt this machine from greylisting and rate limits there."
	case r.Enhanced == "5.7.51":
		return "No inbound connector of the tenant lets our certificate in: see the step connector, or have the customer's administrator compare Get-InboundConnector with the name that we show."
	case e.TLS == TLSMutual && class == "7":
		return "The server does not know our certificate, or takes no mail for " + rcpt.Domain + " from us: have it accept the SHA-256 that the step certificate names, and add the domain to those it accepts."
	case strings.Contains(words, "relay") || class == "7":
		return "The server does not take mail for " + rcpt.Domain + " from us: add the domain to those it accepts, and let this machine send to it."
	case class == "1" || class == "" || strings.Contains(words, "unknown") || strings.Contains(words, "not found"):
		return "The server has no mailbox " + rcpt.String() + ": create it there, or test with an address that exists."
	}
	return "The server refuses " + rcpt.String() + ": see what it says, or test with another address."
}

func fixMessage(r mail.Reply) string {
	if r.Temporary() {
		return "The server cannot take the message now: repeat the test in some minutes, and look at its log."
	}
	return "The server refuses what we send: exempt this machine from its content checks, for we have made them already."
}

func fixBroken() string {
	return "The server ended the dialogue early: look at its log for the reason."
}

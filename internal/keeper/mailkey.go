package keeper

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
)

// Identities for messages have no certificate: their public key is published in
// the DNS. They are shown to everybody, so they are bound to no partner; the
// place of the connection is taken by the signing domain, which has a dot and
// so is the name of none.

// mailLife is when a key for messages is due to be changed.
const mailLife = 365 * 24 * time.Hour

// selfIssued is the issuer of what needs none.
const selfIssued = "none"

// isMail reports whether identities of a purpose sign messages.
func isMail(purpose string) bool { return purpose == string(sign.DKIM) || purpose == string(sign.ARC) }

// mailKeys is the issuer of identities for messages: the "chain" is the public
// key itself, as SubjectPublicKeyInfo.
type mailKeys struct{}

func (mailKeys) Name() string { return selfIssued }

func (mailKeys) Issue(_ context.Context, r Request) ([][]byte, error) {
	if !isMail(r.Purpose) {
		return nil, fault.New(fault.Invalid, "keeper.Issue", "an identity for "+r.Purpose+" needs an issuer").WithHint("Leave the issuer out.")
	}
	der, err := x509.MarshalPKIXPublicKey(r.Key.Public())
	return [][]byte{der}, fault.Wrap(fault.Internal, "keeper.Issue", err)
}

// nameMail gives a row for messages its epoch and the DNS name of its key
// record (RFC 6376 3.6.2.1). Each key has a selector that nobody has used: mail
// under way is verified with the record of the one before.
func (e epochs) nameMail(r *identity, epoch uint64) error {
	const op = "keeper.Issue"
	if epoch != 0 && epoch != e.newest+1 {
		return fault.New(fault.Conflict, op, "the newest epoch is "+strconv.FormatUint(e.newest, 10)+", and "+strconv.FormatUint(epoch, 10)+" is not the next").
			WithHint("Ask for the next epoch, or leave it out.")
	}
	if !strings.Contains(r.connection, ".") || !sign.IsDomain(r.connection) {
		return fault.New(fault.Invalid, op, strconv.Quote(r.connection)+" is no domain that signs messages").WithHint("Name the signing domain in the place of the connection.")
	}
	r.epoch = e.newest + 1
	r.name = "e" + strconv.FormatUint(r.epoch, 10) + "-" + label() + "._domainkey." + r.connection
	return nil
}

// publish makes a row for messages issued, as certify does for others.
func (r *identity) publish(spki []byte, public crypto.PublicKey, now time.Time) error {
	const op = "keeper.Issue"
	got, err := x509.ParsePKIXPublicKey(spki)
	if err != nil || !samePublic(public, got) {
		return fault.New(fault.Internal, op, "the public key of an identity for messages is another than was made")
	}
	r.chain = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	r.sha256 = sumOf(spki)
	r.notBefore, r.notAfter = now.UnixMicro(), now.Add(mailLife).UnixMicro()
	return nil
}

// publicOf is the public key that a row shows.
func publicOf(purpose string, der []byte) (crypto.PublicKey, error) {
	if isMail(purpose) {
		return x509.ParsePKIXPublicKey(der)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return leaf.PublicKey, nil
}

// toldMail moves the public key to where it is told.
func toldMail(i act.Identity) act.Identity {
	if isMail(i.Purpose) && len(i.Chain) == 1 {
		i.Public, i.Chain = i.Chain[0], nil
	}
	return i
}

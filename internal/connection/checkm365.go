package connection

import (
	"net/url"
	"strings"

	"github.com/google/uuid"
)

// microsoft sees that an m365 connection says whose Microsoft 365 it is, and
// fills in what follows.
func (k *checker) microsoft() {
	c := &k.e.Connection
	if c.Kind != KindM365 {
		if c.Graph+c.Login+c.EntraTenant+c.AppID+c.AppObject+c.Connector != "" {
			k.refuse("Graph, Entra and connectors are Microsoft 365's", "Give --kind m365 with them.")
		}
		return
	}
	k.entraWords()
	switch {
	case c.TLS != "" && c.TLS != TLSMutual && c.TLS != TLSOpportunistic:
		k.refuse("Microsoft 365 knows us by our certificate", "Leave --tls out, or give mutual.")
	case c.MX || len(c.Hosts) == 0:
		k.refuse("a connection of kind m365 has the host of the tenant's mail front", "Give with --host the MX that Microsoft names for the customer's domain.")
	case len(c.Connector) > 64-len(nextMark) || strings.ContainsAny(c.Connector, "/\r\n"):
		k.refuse("that is no name of a connector that a second one can be called after", "Give at most 57 characters, without a slash.")
	}
	c.TLS = TLSMutual
	if c.Issuer == "" && isMicrosoft(c.Graph) {
		c.Issuer = issuerACME // Exchange Online takes no other than public authorities
	}
}

// entraWords sees that the addresses and ids of Microsoft's side are some, and
// fills in those that follow from others.
func (k *checker) entraWords() {
	c := &k.e.Connection
	if c.Graph == "" {
		c.Graph = "https://graph.microsoft.com"
	}
	c.Graph = k.address("graph", c.Graph)
	if c.Login == "" {
		c.Login = clouds()[c.Graph]
	}
	if c.Login == "" {
		c.Login = c.Graph // the simulator's is the same
	}
	c.Login = k.address("login", c.Login)
	c.EntraTenant = k.id("entra-tenant", c.EntraTenant)
	if c.EntraTenant == "" {
		k.refuse("a connection of kind m365 names the customer's Entra tenant", "Give its id with --entra-tenant.")
	}
	c.AppID, c.AppObject = k.id("app-id", c.AppID), k.id("app-object", c.AppObject)
}

// CheckMicrosoft finds what is wrong by itself in what an m365 connection says
// of Microsoft's side, without a gateway: invalid, with what to give.
func CheckMicrosoft(c Connection) error {
	k := &checker{op: "connection.CheckMicrosoft", e: &entry{Connection: c}}
	if c.Kind == KindM365 {
		k.entraWords()
	}
	return k.err
}

const issuerACME = "acme"

// issuer sees who is to issue our mail certificate.
func (k *checker) issuer() {
	switch c := &k.e.Connection; {
	case c.Issuer == "":
	case c.Issuer != "builtin" && c.Issuer != issuerACME:
		k.refuse("there is no issuer "+c.Issuer, "Give builtin or acme.")
	case c.TLS != TLSMutual:
		k.refuse("an issuer is of no use with the TLS rule "+c.TLS, "Give --tls mutual with it.")
	}
}

// address reads https://host[:port].
func (k *checker) address(flag, text string) string {
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		k.refuse("--"+flag+" "+text+" is not an address", "Give it as https://host or https://host:port.")
		return text
	}
	return "https://" + strings.ToLower(u.Host)
}

// id reads a GUID of Entra's.
func (k *checker) id(flag, text string) string {
	if text == "" {
		return ""
	}
	id, err := uuid.Parse(text)
	if err != nil {
		k.refuse("--"+flag+" "+text+" is not an id", "Give the GUID that the Entra admin centre shows.")
		return text
	}
	return id.String()
}

// OutsideMicrosoft reports an m365 connection whose web addresses are not
// Microsoft's: a simulator's.
func OutsideMicrosoft(c Connection) bool {
	return c.Kind == KindM365 && (c.Graph != "" && !isMicrosoft(strings.TrimSuffix(strings.ToLower(c.Graph), "/")) ||
		c.Login != "" && c.Login != clouds()[strings.TrimSuffix(strings.ToLower(c.Graph), "/")])
}

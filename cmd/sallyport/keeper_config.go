package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Names of what is in a keeper's folder.
const (
	keeperConfigName = "keeper.toml"
	kekName          = "kek.json"
	passphraseName   = "kek.passphrase"
	socketName       = "keeper.sock"
)

// keeperConfig is keeper.toml. Paths that are not absolute are below the
// keeper's folder.
type keeperConfig struct {
	Region     string   `toml:"region"`
	BaseDomain string   `toml:"base_domain"`
	Hosts      []string `toml:"hosts,omitempty" comment:"Our host names that this region's listeners show certificates of."`
	Store      string   `toml:"store,omitempty" comment:"sqlite, in this folder, or postgres://user@host/database of the keeper's own"`
	Socket     string   `toml:"socket,omitempty" comment:"Unix socket; who may ask is told by user id."`

	Listen *keeperListen `toml:"listen,omitempty"`
	Grants []grantConfig `toml:"grant"`
	KEK    kekConfig     `toml:"kek"`
	KEKOld []kekConfig   `toml:"kek_old,omitempty"`

	KEKStandby    *kekConfig  `toml:"kek_standby,omitempty" comment:"A second KEK, of the next identities that are made ahead."`
	KEKStandbyOld []kekConfig `toml:"kek_standby_old,omitempty"`

	Keys      keysConfig       `toml:"keys,omitempty"`
	Operators []operatorConfig `toml:"operator,omitempty"`
	Witnesses []witnessConfig  `toml:"witness,omitempty"`
	ACME      *acmeConfig      `toml:"acme,omitempty"`

	RetentionDays int `toml:"retention_days,omitempty" comment:"Of the texts of ledger entries; 0 is for ever."`
	BreakerLimit  int `toml:"breaker_limit,omitempty" comment:"Openings of credentials a minute."`
	Pool          int `toml:"pool,omitempty" comment:"RSA keys made ahead."`
}

// keeperListen is the keeper on TCP, with mutual TLS.
type keeperListen struct {
	Address     string `toml:"address"`
	Certificate string `toml:"certificate"`
	Key         string `toml:"key"`
	ClientCA    string `toml:"client_ca" comment:"PEM of the CA that issues the gateways' certificates."`
}

// grantConfig is what one peer may ask for.
type grantConfig struct {
	UID         *uint32  `toml:"uid,omitempty"`
	Certificate string   `toml:"certificate,omitempty" comment:"First DNS name of the peer's certificate."`
	Acts        []string `toml:"acts"`
}

// allGateway stands for every act that a gateway asks for.
const allGateway = "all-gateway"

// kekConfig is one KEK.
type kekConfig struct {
	Driver         string `toml:"driver" comment:"file (for trying out), transit or pkcs11"`
	File           string `toml:"file,omitempty"`
	PassphraseFile string `toml:"passphrase_file,omitempty" comment:"Without it: the credential kek-passphrase of the service manager; of standbys kek-standby-passphrase."`

	Address   string `toml:"address,omitempty"` // transit
	Mount     string `toml:"mount,omitempty"`
	Key       string `toml:"key,omitempty"`
	Namespace string `toml:"namespace,omitempty"`
	TokenFile string `toml:"token_file,omitempty"`
	CA        string `toml:"ca,omitempty"`

	Module  string `toml:"module,omitempty"` // pkcs11
	Token   string `toml:"token,omitempty"`
	PINFile string `toml:"pin_file,omitempty"`
	Label   string `toml:"label,omitempty" comment:"Of the key; sallyport-kek-<region> without, of standbys sallyport-kek-standby-<region>."`
}

// keysConfig says where new keys are made.
type keysConfig struct {
	Driver  string `toml:"driver,omitempty" comment:"software or pkcs11"`
	Module  string `toml:"module,omitempty"`
	Token   string `toml:"token,omitempty"`
	PINFile string `toml:"pin_file,omitempty"`
}

// acmeConfig is an account at a public CA (RFC 8555).
type acmeConfig struct {
	Directory  string `toml:"directory" comment:"https URL of the CA's directory."`
	Roots      string `toml:"roots,omitempty" comment:"PEM file of the roots of the directory's own certificate; the system's without."`
	Contact    string `toml:"contact,omitempty" comment:"Mail address that the CA may write to."`
	Profile    string `toml:"profile,omitempty"`
	EABID      string `toml:"eab_id,omitempty" comment:"External account binding, where the CA wants one."`
	EABKeyFile string `toml:"eab_key_file,omitempty" comment:"File with its key, base64url."`

	DNS *acmeDNSConfig `toml:"dns,omitempty" comment:"Challenges by DNS-01 instead of HTTP-01."`
}

// acmeDNSConfig is where the TXT records of DNS-01 are published: a server that
// takes DNS UPDATE signed with TSIG (RFC 2136, 8945).
type acmeDNSConfig struct {
	Server       string   `toml:"server" comment:"Host, or host:port, that takes updates over TCP."`
	Zone         string   `toml:"zone,omitempty" comment:"Zone that the records are in; the server is asked without."`
	KeyName      string   `toml:"key_name,omitempty"`
	KeyFile      string   `toml:"key_file" comment:"The secret in base64, or the key statement of tsig-keygen; mode 0600."`
	Algorithm    string   `toml:"algorithm,omitempty" comment:"hmac-sha256 or hmac-sha512"`
	TTL          int      `toml:"ttl,omitempty" comment:"Of the records, in seconds."`
	Resolvers    []string `toml:"resolvers,omitempty" comment:"For what the server is not authoritative for; the system's without."`
	Check        []string `toml:"check,omitempty" comment:"Servers that have to show a record; those of the zone's NS records without."`
	PropagationS int      `toml:"propagation_s,omitempty" comment:"Longest wait for them."`
}

type operatorConfig struct {
	Name string `toml:"name"`
	Key  string `toml:"key" comment:"As sallyport operator new printed it."`
}

type witnessConfig struct {
	URL  string `toml:"url,omitempty"`
	Key  string `toml:"key,omitempty" comment:"Verifier key of its cosignatures."`
	File string `toml:"file,omitempty" comment:"Instead of url: a file on another disk or host."`
}

// keeperSettings are those of the keeper in the folder of --data, whose path
// comes absolute.
func (e *env) keeperSettings() (dir string, cfg keeperConfig, err error) {
	if dir, err = filepath.Abs(e.flags.Data); err != nil {
		return "", keeperConfig{}, fault.Wrap(fault.Invalid, "data", err)
	}
	cfg, err = loadKeeperConfig(dir)
	return dir, cfg, err
}

// loadKeeperConfig reads DIR/keeper.toml. Unknown keys are an error, as in the
// gateway's settings.
func loadKeeperConfig(dir string) (keeperConfig, error) {
	path := filepath.Join(dir, keeperConfigName)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return keeperConfig{}, fault.New(fault.Missing, "", dir+" is not the folder of a keeper: it has no "+keeperConfigName).
			WithHint("Make one with `sallyport keeper init --data " + dir + " --region R --base-domain DOMAIN`, or name another with --data.")
	}
	if err != nil {
		return keeperConfig{}, fault.Wrap(fault.Invalid, "config", err)
	}
	c, err := parseKeeperConfig(raw, path)
	if err != nil {
		return c, err
	}
	c.place(dir)
	return c, nil
}

func parseKeeperConfig(raw []byte, path string) (keeperConfig, error) {
	var c keeperConfig
	d := toml.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fault.New(fault.Invalid, "", path+": "+describeTOML(err)).WithHint("docs/operate.md lists the settings.")
	}
	if err := c.check(); err != nil {
		return c, fault.New(fault.Invalid, "", path+": "+err.Error()).WithHint("docs/operate.md lists the settings.")
	}
	return c, nil
}

func (c keeperConfig) check() error {
	if _, err := mail.ParseDomain(c.BaseDomain); err != nil {
		return fmt.Errorf("base_domain %q is not a domain name", c.BaseDomain)
	}
	if c.Region == "" || strings.ContainsAny(c.Region, "./: ") {
		return fmt.Errorf("region %q is not the name of a region", c.Region)
	}
	if c.Socket == "" && c.Listen == nil {
		return errors.New("there is neither socket nor [listen]: nobody could ask this keeper")
	}
	if l := c.Listen; l != nil {
		if _, _, err := net.SplitHostPort(l.Address); err != nil || l.Certificate == "" || l.Key == "" || l.ClientCA == "" {
			return errors.New("[listen] needs address (host:port), certificate, key and client_ca")
		}
	}
	if c.RetentionDays < 0 || c.BreakerLimit < 0 || c.Pool < 0 {
		return errors.New("retention_days, breaker_limit and pool are not negative")
	}
	if a := c.ACME; a != nil && (a.Directory == "" || (a.EABID == "") != (a.EABKeyFile == "")) {
		return errors.New("[acme] needs directory, and eab_id and eab_key_file together or neither")
	}
	if a := c.ACME; a != nil && a.DNS != nil && (a.DNS.Server == "" || a.DNS.KeyFile == "") {
		return errors.New("[acme.dns] needs server and key_file")
	}
	if len(c.Grants) == 0 {
		return errors.New("there is no [[grant]]: nobody may ask this keeper for anything")
	}
	for _, k := range c.keks() {
		if err := k.check(); err != nil {
			return err
		}
	}
	if c.KEKStandby == nil && len(c.KEKStandbyOld) > 0 {
		return errors.New("there is a [[kek_standby_old]] and no [kek_standby] to rotate to")
	}
	return c.checkPeople()
}

// checkPeople looks at who may ask, sign and witness.
func (c keeperConfig) checkPeople() error {
	for _, g := range c.Grants {
		if _, err := g.grant(); err != nil {
			return err
		}
	}
	if _, err := c.operators(); err != nil {
		return err
	}
	for _, w := range c.Witnesses {
		if (w.URL == "") == (w.File == "") || (w.URL == "") != (w.Key == "") {
			return errors.New("a [[witness]] has url and key, or file")
		}
	}
	switch c.Keys.Driver {
	case "", "software":
		return nil
	case "pkcs11":
		if k := c.Keys; k.Module == "" || k.Token == "" || k.PINFile == "" {
			return errors.New("[keys] of the driver pkcs11 needs module, token (its label) and pin_file")
		}
		return nil
	}
	return fmt.Errorf("[keys] driver %q is neither software nor pkcs11", c.Keys.Driver)
}

// keks are all that the settings name.
func (c *keeperConfig) keks() []*kekConfig {
	all := []*kekConfig{&c.KEK}
	for i := range c.KEKOld {
		all = append(all, &c.KEKOld[i])
	}
	return append(all, c.standbyKEKs()...)
}

// standbyKEKs are those of standbys, the one in force first.
func (c *keeperConfig) standbyKEKs() (all []*kekConfig) {
	if c.KEKStandby != nil {
		all = append(all, c.KEKStandby)
	}
	for i := range c.KEKStandbyOld {
		all = append(all, &c.KEKStandbyOld[i])
	}
	return all
}

func (k kekConfig) check() error {
	switch k.Driver {
	case "file":
		if k.File == "" {
			return errors.New("a KEK of the driver file needs file")
		}
	case "transit":
		if k.Address == "" || k.Key == "" || k.TokenFile == "" {
			return errors.New("a KEK of the driver transit needs address, key and token_file")
		}
	case "pkcs11":
		if k.Module == "" || k.Token == "" || k.PINFile == "" {
			return errors.New("a KEK of the driver pkcs11 needs module, token (its label) and pin_file")
		}
	default:
		return fmt.Errorf("KEK driver %q is none of file, transit, pkcs11", k.Driver)
	}
	return nil
}

// grant is the grant as the keeper's server knows it.
func (g grantConfig) grant() (wire.Grant, error) {
	if (g.UID == nil) == (g.Certificate == "") {
		return wire.Grant{}, errors.New("a [[grant]] is of a uid or of a certificate")
	}
	out := wire.Grant{Certificate: g.Certificate}
	if g.UID != nil {
		out.Local, out.UID = true, *g.UID
	}
	for _, name := range g.Acts {
		switch {
		case name == allGateway:
			out.Acts = append(out.Acts, act.All()...)
		case slices.Contains(act.All(), act.Name(name)):
			out.Acts = append(out.Acts, act.Name(name))
		default:
			return out, fmt.Errorf("there is no act %q for a [[grant]]", name)
		}
	}
	if len(out.Acts) == 0 {
		return out, errors.New("a [[grant]] names no acts")
	}
	return out, nil
}

func (c keeperConfig) operators() ([]operator.Public, error) {
	var out []operator.Public
	for _, o := range c.Operators {
		p, err := operator.ParsePublic(o.Key)
		if err != nil {
			return nil, fmt.Errorf("[[operator]] %s: %s", o.Name, fault.Sentence(err))
		}
		if o.Name != "" && o.Name != p.Name {
			return nil, fmt.Errorf("[[operator]] %s: the key is %s's", o.Name, p.Name)
		}
		out = append(out, p)
	}
	return out, nil
}

// place makes every path absolute.
func (c *keeperConfig) place(dir string) {
	paths := []*string{&c.Socket, &c.Keys.PINFile}
	if c.Listen != nil {
		paths = append(paths, &c.Listen.Certificate, &c.Listen.Key, &c.Listen.ClientCA)
	}
	if c.ACME != nil {
		paths = append(paths, &c.ACME.Roots, &c.ACME.EABKeyFile)
		if c.ACME.DNS != nil {
			paths = append(paths, &c.ACME.DNS.KeyFile)
		}
	}
	for _, k := range c.keks() {
		paths = append(paths, &k.File, &k.PassphraseFile, &k.TokenFile, &k.CA, &k.PINFile)
	}
	for i := range c.Witnesses {
		paths = append(paths, &c.Witnesses[i].File)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

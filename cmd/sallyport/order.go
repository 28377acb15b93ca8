package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

type orderCmd struct {
	Make   orderMake   `cmd:"" help:"Write an order and sign it first."`
	Sign   orderSign   `cmd:"" help:"Show what an order says, and add another person's signature."`
	Show   orderShow   `cmd:"" help:"Show what an order says and which keys have signed it."`
	Submit orderSubmit `cmd:"" help:"Hand an order to the keeper of its region."`
}

// orderLife is the longest that a keeper takes an order for.
const orderLife = 24 * time.Hour

// maxOrderFile is more than any order has.
const maxOrderFile = 256 << 10

type orderMake struct {
	Act     string            `arg:"" help:"What is ordered: change-binding, open-campaign, lift-breaker, thaw, rotate-kek, restore, plant-decoy, release-decoy; docs/keys.md has the list."`
	Region  string            `required:"" help:"The region whose keeper it is for." placeholder:"R"`
	Subject string            `help:"What it is of, such as acme/mailbox." placeholder:"S"`
	Set     map[string]string `help:"A parameter, K=V. Can be given several times." mapsep:"none" placeholder:"K=V"`
	SetFile map[string]string `help:"A parameter from a file, K=FILE: for secrets, which are never an argument. - is standard input." mapsep:"none" placeholder:"K=FILE"`
	Key     string            `required:"" help:"The key's file of the person who signs first." placeholder:"FILE"`
	Out     string            `required:"" help:"File for the order, which must not exist." placeholder:"FILE"`
	For     time.Duration     `help:"How long the order counts, at most 24h." default:"1h" placeholder:"D"`
}

func (c *orderMake) Run(e *env) error {
	if c.For < time.Second || c.For > orderLife {
		return usage("--for is at least 1s and at most 24h", "An order that nobody hands in should not lie about for long.")
	}
	parameters, err := c.parameters(e)
	if err != nil {
		return err
	}
	if err := checkUntil(c.Act, parameters, time.Now()); err != nil {
		return err
	}
	o := operator.New(c.Act, c.Region, c.Subject, parameters, time.Now().Add(c.For))
	if _, err := operator.Need(o); err != nil {
		return err
	}
	key, err := operator.ReadKey(c.Key)
	if err != nil {
		return err
	}
	raw, err := operator.Sign(o, key)
	if err != nil {
		return err
	}
	if err := newFile(c.Out, raw); err != nil {
		return err
	}
	return e.showOrder(raw, c.Out)
}

// checkUntil refuses a campaign that no keeper would open: people would sign it
// in vain.
func checkUntil(ordered string, parameters map[string]string, now time.Time) error {
	text, given := parameters["until"]
	if ordered != operator.OpenCampaign || !given {
		return nil
	}
	hint := "Give a time within a day, in UTC: --set until=" + now.Add(2*time.Hour).UTC().Format(time.RFC3339) + "."
	until, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		return usage("until="+text+" is not a time", hint)
	case !until.After(now):
		return usage("until="+text+" is over", hint)
	case until.Sub(now) > orderLife:
		return usage("until="+text+" is more than a day away", hint)
	}
	return nil
}

// parameters are those of the command line and those from files.
func (c *orderMake) parameters(e *env) (map[string]string, error) {
	all := maps.Clone(c.Set)
	if all == nil {
		all = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(c.SetFile)) {
		if _, twice := all[name]; twice {
			return nil, usage("the parameter "+name+" is given twice", "Give it with --set or with --set-file.")
		}
		f, err := e.openIn(c.SetFile[name])
		if err != nil {
			return nil, err
		}
		raw, err := io.ReadAll(io.LimitReader(f, maxOrderFile))
		f.Close()
		if err != nil {
			return nil, err
		}
		all[name] = strings.TrimRight(string(raw), "\r\n")
	}
	return all, nil
}

// newFile writes a file that must not be there: an order may hold a secret, and
// another that somebody has signed is not written over.
func newFile(path string, raw []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.New(fault.Conflict, "", "cannot write the order: "+err.Error()).WithHint("Name a file that does not exist.")
	}
	_, err = f.Write(append(raw, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func (e *env) readOrder(path string) ([]byte, error) {
	f, err := e.openIn(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxOrderFile))
}

// orderView is an order as it is shown.
type orderView struct {
	File       string            `json:"file"`
	Act        string            `json:"act"`
	Region     string            `json:"region"`
	Subject    string            `json:"subject"`
	Parameters map[string]string `json:"parameters"`
	Nonce      string            `json:"nonce"`
	NotAfter   time.Time         `json:"not_after"`
	Signed     []string          `json:"signed"` // ids of keys, not verified
	Needed     *int              `json:"needed"` // people, null when nobody may order it
}

func viewOrder(raw []byte, file string) (orderView, error) {
	o, keys, err := operator.Look(raw)
	if err != nil {
		return orderView{}, err
	}
	v := orderView{File: file, Act: o.Act, Region: o.Region, Subject: o.Subject, Parameters: map[string]string{},
		Nonce: fmt.Sprintf("%x", o.Nonce), NotAfter: o.NotAfter, Signed: keys}
	for name, value := range o.Parameters {
		v.Parameters[name] = hidden(name, value)
	}
	if n, err := operator.Need(o); err == nil {
		v.Needed = &n
	}
	return v, nil
}

// hidden keeps secrets off screens: they are signed like the rest, and never
// printed again.
func hidden(name, value string) string {
	switch name {
	case "password", "secret", "passphrase":
		return fmt.Sprintf("(hidden, %d bytes)", len(value))
	}
	return value
}

// lines show an order to somebody who is to sign it: texts that could look
// like others are escaped.
func (v orderView) lines() []string {
	lines := []string{
		"order       " + exact(v.Act),
		"region      " + exact(v.Region),
		"subject     " + exact(v.Subject),
	}
	for _, name := range slices.Sorted(maps.Keys(v.Parameters)) {
		lines = append(lines, "  "+exact(name)+" = "+exact(v.Parameters[name]))
	}
	lines = append(lines, "counts      until "+when(&v.NotAfter)+", once")
	for _, k := range v.Signed {
		lines = append(lines, "signed      by the key "+exact(k)+", not verified here")
	}
	switch missing := v.missing(); {
	case v.Needed == nil:
		lines = append(lines, "needed      no keeper takes this order")
	case missing > 0:
		lines = append(lines, "needed      "+plural(missing)+": sallyport order sign "+v.File+" --key FILE")
	default:
		lines = append(lines, "needed      nothing more: sallyport order submit "+v.File)
	}
	return lines
}

// missing is how many people have still to sign.
func (v orderView) missing() int {
	if v.Needed == nil {
		return 0
	}
	return max(0, *v.Needed-len(v.Signed))
}

// exact shows a text so that no two look alike: anything but printable ASCII
// is escaped, and what is empty can be seen.
func exact(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// showOrder prints what an order says.
func (e *env) showOrder(raw []byte, file string) error {
	v, err := viewOrder(raw, file)
	if err != nil {
		return err
	}
	return e.done(strings.Join(v.lines(), "\n"), v)
}

type orderShow struct {
	File string `arg:"" help:"The order's file."`
}

func (c *orderShow) Run(e *env) error {
	raw, err := e.readOrder(c.File)
	if err != nil {
		return err
	}
	return e.showOrder(raw, c.File)
}

type orderSign struct {
	File string `arg:"" help:"The order's file; the signature is added to it."`
	Key  string `required:"" help:"The key's file of the person who signs." placeholder:"FILE"`
	Yes  bool   `help:"Do not ask: what the order says has been read."`
}

func (c *orderSign) Run(e *env) error {
	if c.File == "-" {
		return usage("the signature is added to the file, and standard input is none", "Name the order's file.")
	}
	raw, err := e.readOrder(c.File)
	if err != nil {
		return err
	}
	key, err := operator.ReadKey(c.Key)
	if err != nil {
		return err
	}
	var asked error
	more, err := operator.Cosign(raw, key, func(operator.Order) bool {
		if !c.Yes {
			asked = e.agree(raw, c.File, key.Public().Name)
		}
		return asked == nil
	})
	if asked != nil {
		return asked
	}
	if err != nil {
		return err
	}
	if _, err := writeWhole(c.File, func(w io.Writer) error { _, err := w.Write(append(more, '\n')); return err }); err != nil {
		return err
	}
	return e.showOrder(more, c.File)
}

// agree shows an order on standard error, where it is seen with --json too, and
// reads the answer from standard input.
func (e *env) agree(raw []byte, file, name string) error {
	v, err := viewOrder(raw, file)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "%s\n\nSign this as %s? Type yes: ", strings.Join(v.lines(), "\n"), name)
	answer, err := bufio.NewReader(io.LimitReader(e.stdin, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		return fault.New(fault.Denied, "", "the order was not signed").WithHint("Answer yes, or give --yes when you have read it.")
	}
	return nil
}

type orderSubmit struct {
	File   string `arg:"" help:"The order's file."`
	Socket string `help:"Socket of the region's keeper, to go past the gateway: for decoys, and orders with a secret in them." type:"path" placeholder:"PATH"`
}

func (c *orderSubmit) Run(e *env) error {
	raw, err := e.readOrder(c.File)
	if err != nil {
		return err
	}
	o, _, err := operator.Look(raw)
	if err != nil {
		return err
	}
	answer, err := c.submit(e, o, raw)
	if err != nil {
		return err
	}
	return printAs(e, answer, func(v api.Ordered) string { return orderedText(o, v) })
}

func (c *orderSubmit) submit(e *env, o operator.Order, raw []byte) (json.RawMessage, error) {
	if c.Socket == "" {
		if why := notByGateway(o); why != "" {
			return nil, fault.New(fault.Denied, "", why+", which the gateway is not to know").
				WithHint("Hand it to the keeper itself: --socket PATH, on the keeper's host.")
		}
		return e.call("POST", "/v1/orders", nil, map[string]any{"region": o.Region, "order": json.RawMessage(raw)})
	}
	keeper, err := client.NewRemote(client.RemoteConfig{Region: o.Region, Socket: c.Socket})
	if err != nil {
		return nil, err
	}
	defer keeper.Close()
	got, err := giveOrder(e.ctx, keeper, raw)
	if err != nil {
		return nil, err
	}
	return json.Marshal(got)
}

// notByGateway says why an order must not pass the gateway: which rows are
// decoys only the keeper can tell, and a secret in an order is not its to see.
func notByGateway(o operator.Order) string {
	if o.Act == operator.PlantDecoy || o.Act == operator.ReleaseDecoy {
		return "the order says which row is a decoy"
	}
	for _, name := range slices.Sorted(maps.Keys(o.Parameters)) {
		if hidden(name, o.Parameters[name]) != o.Parameters[name] {
			return "the order has a secret in it, " + exact(name)
		}
	}
	return ""
}

func orderedText(o operator.Order, v api.Ordered) string {
	lines := []string{exact(o.Act) + " of " + exact(o.Subject) + " in " + exact(o.Region) + ": done"}
	if v.Text != nil {
		lines = append(lines, plain(*v.Text))
	}
	if v.Secret != nil {
		lines = append(lines, "secret  "+*v.Secret, "It is shown this once.")
	}
	if v.Report != nil {
		lines = append(lines, "report  "+*v.Report, "Its partner reports a use with this code: POST /v1/sightings, or sallyport decoy seen (docs/keys.md).")
	}
	return strings.Join(lines, "\n")
}

package keeper

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

func plant(connection string) map[string]string {
	tenant, name, _ := strings.Cut(connection, "/")
	return map[string]string{"tenant": tenant, "connection": name, "host": "mx.acme.example", "port": "587", "server_name": "mx.acme.example",
		"kind": "credential", "user": "u@acme.example"}
}

// A decoy is planted like any credential, opens to nobody, and rings.
func TestDecoy(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		r.bindTo(t, "mx.acme.example", "acme/mailbox")
		r.set(t, "acme/mailbox", "u@acme.example", "a real password of theirs")
		got, err := r.order(t, signOrder(t, operator.PlantDecoy, "", plant("acme/journal"), s.anna))
		if err != nil || len(got.Secret) < 20 {
			t.Fatalf("%+v: %v", got, err)
		}
		if _, err := r.order(t, signOrder(t, operator.PlantDecoy, "", plant("acme/mailbox"), s.anna)); !fault.Is(err, fault.Conflict) {
			t.Errorf("over a connection in use: %v", err)
		}
		for i, use := range []func() error{
			func() error { _, err := r.open("acme/journal"); return err },
			func() error {
				_, err := r.SetCredential(t.Context(), someone(), act.NewCredential{Context: aboutOf("acme/journal", purposeAuth), Password: "x"})
				return err
			},
			func() error {
				_, err := r.RemoveCredential(t.Context(), someone(), act.Plain{Context: aboutOf("acme/journal", purposeAuth)})
				return err
			},
		} {
			r.alarms.mu.Lock()
			r.alarms.list, r.alarms.told = nil, nil
			r.alarms.mu.Unlock()
			if err := use(); !fault.Is(err, fault.Denied) || strings.Contains(err.Error(), "decoy") {
				t.Errorf("use %d: %v", i, err)
			}
			if !r.hasAlarm(alarmDecoy) {
				t.Errorf("use %d: no alarm", i)
			}
		}
		if _, err := r.open("acme/mailbox"); err != nil {
			t.Errorf("the real one: %v", err)
		}
		r.end()
		r = r.again(t)
		for _, e := range r.entries(t) {
			if strings.Contains(e.Subject+e.Outcome, got.Secret) || e.Act == operator.PlantDecoy && (e.Tenant != "" || strings.Contains(e.Subject, "journal")) ||
				e.Act == "order" && strings.Contains(e.Subject, "journal") {
				t.Errorf("the ledger tells which is the decoy: %+v", e)
			}
		}
		if _, err := r.order(t, signOrder(t, operator.ReleaseDecoy, "", plant("acme/mailbox"), s.anna)); !fault.Is(err, fault.Conflict) {
			t.Errorf("released a real one: %v", err)
		}
		if _, err := r.order(t, signOrder(t, operator.ReleaseDecoy, "", plant("acme/journal"), s.anna)); err != nil {
			t.Error(err)
		}
		if _, err := r.open("acme/journal"); !fault.Is(err, fault.Missing) {
			t.Errorf("after its release: %v", err)
		}
	}, s.known)
}

// A decoy identity is active like any other, and is shown to nobody.
func TestDecoyIdentity(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		q := plant("acme/journal")
		q["kind"] = "identity"
		got, err := r.order(t, signOrder(t, operator.PlantDecoy, "", q, s.anna))
		if err != nil || got.Secret != "" {
			t.Fatalf("%+v: %v", got, err)
		}
		list, err := r.ListIdentities(ctx, someone(), act.IdentityQuery{Context: aboutOf("acme/journal", "list")})
		if err != nil || len(list.Identities) != 1 || list.Identities[0].State != act.Active || !strings.Contains(got.Text, list.Identities[0].SHA256) {
			t.Fatalf("%+v: %v", list, err)
		}
		client := aboutOf("acme/journal", "smtp-client")
		if _, err := r.TenantCertificate(ctx, someone(), act.Which{Context: client}); !fault.Is(err, fault.Denied) || !r.hasAlarm(alarmDecoy) {
			t.Errorf("its certificate: %v", err)
		}
		if _, err := r.ReleaseConnection(ctx, someone(), act.Plain{Context: aboutOf("acme/journal", "binding")}); !fault.Is(err, fault.Denied) {
			t.Errorf("released by the gateway: %v", err)
		}
		if _, err := r.order(t, signOrder(t, operator.ReleaseDecoy, "", q, s.anna)); err != nil {
			t.Error(err)
		}
		if _, err := r.TenantCertificate(ctx, someone(), act.Which{Context: client}); !fault.Is(err, fault.Missing) {
			t.Errorf("after its release: %v", err)
		}
	}, s.known)
}

// Whoever has the table can't tell a decoy: each column has the shape that the
// real ones have, after use too.
func TestDecoysLookAlike(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		for i := range 4 {
			name := fmt.Sprintf("acme/real%d", i)
			r.bindTo(t, "mx.acme.example", name)
			r.set(t, name, "someone@acme.example", strings.Repeat("x", 5+9*i))
			if _, err := r.open(name); err != nil {
				t.Fatal(err)
			}
		}
		r.openings.write(t.Context())
		for i := range 4 {
			if _, err := r.order(t, signOrder(t, operator.PlantDecoy, "", plant(fmt.Sprintf("acme/fake%d", i)), s.anna)); err != nil {
				t.Fatal(err)
			}
		}
		rows, err := r.door.Query(t.Context(), `SELECT c.connection, c.purpose, length(c.blob), length(c.marker), length(c.used), c.binding, b.binding, c.set_at
			FROM keeper_credential c JOIN keeper_binding b ON b.tenant = c.tenant AND b.connection = c.connection`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		shapes := map[string]int{}
		n := 0
		for rows.Next() {
			var connection, purpose, binding, bound string
			var blob, marker, used, setAt int64
			if err := rows.Scan(&connection, &purpose, &blob, &marker, &used, &binding, &bound, &setAt); err != nil {
				t.Fatal(err)
			}
			var b act.Binding
			if err := json.Unmarshal([]byte(binding), &b); err != nil || setAt < r.now().UnixMicro()-3600e6 {
				t.Errorf("%s: %v", connection, err)
			}
			shapes[fmt.Sprint(purpose, blob, marker, used, binding == bound, b)]++
			n++
		}
		if err := rows.Err(); err != nil || n != 8 || len(shapes) != 1 {
			t.Errorf("%d rows of %d shapes: %v, %v", n, len(shapes), shapes, err)
		}
	}, s.known)
}

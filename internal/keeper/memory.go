package keeper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	actRemember = "remember" // the entry of each manifest; its outcome is the manifest's SHA-256

	manifestEntries = 10_000        // a new manifest is written after so many entries,
	manifestEvery   = 6 * time.Hour // or when that has passed: a start reads the entries since
	memoryWas       = "what the keeper remembers of itself is not what it was: "
)

// manifest is what the rows of keeper_state are held against. It is sealed, so
// that nobody else makes one, and the newest entry of its kind in the ledger has
// its digest, so that no older one comes back. The rows themselves stay in
// clear: a keeper whose KEK is away can read that it is frozen.
type manifest struct {
	// From is how many entries the ledger had when it was made: its own is after
	// them.
	From int64             `json:"from"`
	Rows map[string]string `json:"rows"` // hex of the SHA-256 of each row's value
}

// memory is the manifest in force.
type memory struct {
	k *Keeper

	mu     sync.Mutex
	dk     *seal.DataKey // of the start, kept open: a freeze is written down while the KEK is away
	now    manifest
	owed   string    // digest of a manifest that is on disk and not in the ledger yet
	tried  *attempt  // a commit of which nobody knows whether it took
	at     time.Time // when it was last made
	edited string    // why the rows are not believed; "" when they are
	taken  bool      // the rows that are not believed were made safe
}

// attempt is a manifest that may be on disk, with its digest.
type attempt struct {
	next manifest
	sum  string
}

func (m *memory) init(k *Keeper) { m.k = k }

func (m *memory) place() seal.Place {
	return seal.Place{Region: m.k.c.Region, Tenant: memoryTenant, Purpose: "manifest", Kind: seal.Token}
}

// doubt is why what is remembered is not believed, "" when it is.
func (m *memory) doubt() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.edited
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// openMemory holds what is remembered against the manifest, and that against the
// ledger.
func (k *Keeper) openMemory(ctx context.Context) error {
	m := &k.memory
	if k.ledger == nil {
		return nil // it is frozen for good
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dk, err := k.seals.key(ctx, memoryTenant)
	if err != nil && !fault.Is(err, fault.Denied) {
		return err
	}
	m.dk = dk
	why, err := m.wrong(ctx)
	if fault.Is(err, fault.Conflict) { // the ledger is another than it was
		why, err = fault.Sentence(err), nil
	}
	if why != "" {
		m.edited = memoryWas + why
	}
	return err
}

// wrong says what is; "" for nothing.
func (m *memory) wrong(ctx context.Context) (string, error) {
	rows, err := m.rows(ctx)
	if err != nil {
		return "", err
	}
	text, there := rows[rememberManifest]
	if !there {
		m.now = manifest{Rows: unmarked(rows)}
		first := map[string]string{rememberLedgerKey: m.now.Rows[rememberLedgerKey]}
		if m.k.ledger.Size() == 0 && differ(first, m.now.Rows) == "" {
			return "", nil
		}
		return "its manifest is gone", nil
	}
	sum, ok := m.unseal(text)
	if !ok {
		return "its manifest was edited", nil
	}
	last, removed, err := m.lastSince(ctx, m.now.From)
	switch {
	case err != nil:
		return "", err
	case removed || last != "" && last != sum:
		return "it is older than the ledger says", nil
	case last == "": // a kill came between it and its entry
		m.owed = sum
	}
	return differ(m.now.Rows, unmarked(rows)), nil
}

// unseal reads a manifest out of its row, and returns its digest.
func (m *memory) unseal(text string) (sum string, ok bool) {
	blob, err := hex.DecodeString(text)
	if err != nil || m.dk == nil {
		return "", false
	}
	plain, err := m.dk.Open(m.place(), blob)
	if err != nil || json.Unmarshal(plain.Bytes(), &m.now) != nil || m.now.Rows == nil {
		return "", false
	}
	return digest(blob), true
}

// lastSince is the digest in the newest entry of a manifest from an index on,
// "" for none; removed says that one may have been among those whose text is
// gone.
func (m *memory) lastSince(ctx context.Context, from int64) (last string, removed bool, err error) {
	err = m.k.ledger.Since(ctx, from, func(e ledger.Entry) error {
		if e.Removed {
			removed = true
		} else if e.Act == actRemember && e.Source == ledger.Witnessed && e.Actor == "keeper" {
			last, removed = e.Outcome, false
		}
		return nil
	})
	return last, removed, err
}

// rows are all that is remembered, by name.
func (m *memory) rows(ctx context.Context) (map[string]string, error) {
	rows, err := m.k.door.Query(ctx, selectStates)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, store.Fault("keeper.Memory", err)
		}
		all[name] = value
	}
	return all, store.Fault("keeper.Memory", rows.Err())
}

// unmarked are the digests of rows, without the manifest's own and the mark
// that a backup makes in the copy.
func unmarked(rows map[string]string) map[string]string {
	all := map[string]string{}
	for name, value := range rows {
		if name != rememberManifest && name != rememberRestored {
			all[name] = digest([]byte(value))
		}
	}
	return all
}

// differ names what is not the same; "" for nothing.
func differ(want, have map[string]string) string {
	both := maps.Clone(want)
	maps.Copy(both, have)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(both)) {
		if want[name] != have[name] {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "edited, added or gone: " + clip(strings.Join(names, ", "))
}

// keepMemory makes the manifest of this start. Rows that are not believed are
// made safe first: the breaker is tripped, the keeper frozen.
func (k *Keeper) keepMemory(ctx context.Context) error {
	m := &k.memory
	if k.ledger == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.renew(ctx)
	if m.edited != "" && err != nil { // the next start finds it too
		k.c.Log.Error("keeper: what it remembers was edited, and is not mended", "error", err)
		return nil
	}
	return err
}

// renew writes the manifest anew. The caller holds the lock.
func (m *memory) renew(ctx context.Context) error {
	if m.edited != "" && !m.taken {
		return m.take(ctx)
	}
	return m.write(ctx, "renewed", maps.Clone(m.now.Rows), func(store.KeeperTx) error { return nil })
}

// take makes a manifest of rows that are not believed, as they stand, but for
// those that would let somebody act: operators decide what becomes of them.
func (m *memory) take(ctx context.Context) error {
	safe := map[string]any{
		rememberFrozen:  frozenState{Why: m.k.frozen.reason()},
		rememberBreaker: m.k.unsure(),
	}
	found, err := m.rows(ctx)
	if err != nil {
		return err
	}
	for _, name := range rotations() { // orders begin them again
		delete(found, name)
	}
	for name, v := range safe {
		text, err := json.Marshal(v)
		if err != nil {
			return fault.Wrap(fault.Internal, "keeper.Memory", err)
		}
		found[name] = string(text)
	}
	m.owed = "" // whatever was begun, this is what counts
	err = m.write(ctx, "as found", unmarked(found), func(tx store.KeeperTx) error {
		for _, name := range rotations() {
			if _, err := tx.Exec(deleteState, name); err != nil {
				return err
			}
		}
		for name := range safe {
			if _, err := tx.Exec(upsertState, name, found[name]); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		m.taken = true
	}
	return err
}

// write makes a change and the manifest of it in one commit, and enters it. A
// kill before the entry leaves a manifest that the next start enters. The
// caller holds the lock.
func (m *memory) write(ctx context.Context, what string, rows map[string]string, change func(store.KeeperTx) error) error {
	if err := m.commit(ctx, rows, change); err != nil {
		return err
	}
	return m.enter(ctx, what)
}

func (m *memory) commit(ctx context.Context, rows map[string]string, change func(store.KeeperTx) error) error {
	const op = "keeper.Memory"
	if err := m.writable(); err != nil {
		return err
	}
	if err := m.resolve(ctx); err != nil {
		return err
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	next := manifest{From: m.k.ledger.Size(), Rows: rows}
	text, err := json.Marshal(next)
	if err != nil {
		return fault.Wrap(fault.Internal, op, err)
	}
	blob, err := m.dk.Seal(m.place(), seal.NewSecret(text))
	if err != nil {
		return err
	}
	err = m.k.door.Change(ctx, func(tx store.KeeperTx) error {
		if err := change(tx); err != nil {
			return err
		}
		_, err := tx.Exec(upsertState, rememberManifest, hex.EncodeToString(blob))
		return err
	})
	if err != nil {
		m.tried = &attempt{next, digest(blob)}
		return err
	}
	m.now, m.at, m.owed = next, time.Now(), digest(blob)
	return nil
}

// writable refuses where no manifest can be sealed.
func (m *memory) writable() error {
	if m.dk == nil {
		return fault.New(fault.Later, "keeper.Memory", "the data key of "+memoryTenant+" does not open").WithHint("Put its row in keeper_datakey back as it was.")
	}
	return nil
}

// resolve finds out what became of a commit that failed: it may have taken all
// the same, as when the connection to the database was lost in it. The caller
// holds the lock.
func (m *memory) resolve(ctx context.Context) error {
	if m.tried == nil {
		return nil
	}
	var text string
	err := store.Fault("keeper.Memory", m.k.door.QueryRow(ctx, selectState, rememberManifest).Scan(&text))
	if err != nil && !fault.Is(err, fault.Missing) {
		return err
	}
	if blob, err := hex.DecodeString(text); err == nil && digest(blob) == m.tried.sum {
		m.now, m.at, m.owed = m.tried.next, time.Now(), m.tried.sum
	}
	m.tried = nil
	return nil
}

// settle enters the manifest that has no entry yet.
func (m *memory) settle(ctx context.Context) error { return m.enter(ctx, "made earlier") }

func (m *memory) enter(ctx context.Context, what string) error {
	if m.owed == "" {
		return nil
	}
	err := m.k.enter(ctx, ledger.Entry{Act: actRemember, Subject: what, Outcome: m.owed})
	if err == nil {
		m.owed = ""
	}
	return err
}

// tend renews the manifest when the entries since it are many, so that a start
// has few to read, and while their texts are there.
func (m *memory) tend(ctx context.Context) {
	if m.k.ledger == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.resolve(ctx); err != nil {
		return // the database is away
	}
	due := m.k.ledger.Size()-m.now.From > manifestEntries || time.Since(m.at) > manifestEvery
	if err := m.settle(ctx); err == nil && !due {
		return
	}
	if err := m.renew(ctx); err != nil && ctx.Err() == nil {
		m.k.c.Log.Error("keeper: the manifest of what it remembers was not renewed", "error", err)
	}
}

package store_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// cutsEnv is how many power cuts are simulated, 5 without it.
const cutsEnv = "SALLYPORT_TEST_CUTS"

// TestPowerCut cuts the power at random moments of a recorded run: every body
// that the process had told of by then is there, and the store is sound.
func TestPowerCut(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		c.Dir = filepath.Join(t.TempDir(), "data")
		must(t, os.Mkdir(c.Dir, 0o700))
		trace := recordWriter(t, c)
		cuts := 5
		if v := os.Getenv(cutsEnv); v != "" {
			var err error
			cuts, err = strconv.Atoi(v)
			must(t, err)
		}
		most := 0
		for i := range cuts {
			seed := rand.Uint64()
			chance := rand.New(rand.NewPCG(seed, uint64(i)))
			at := trace.Len()/5 + chance.IntN(trace.Len()*4/5)
			told := cutAt(t, c, trace, at, chance)
			most = max(most, told)
			if t.Failed() {
				t.Fatalf("seed %d, cut %d at %d of %d, %d told", seed, i, at, trace.Len(), told)
			}
		}
		t.Logf("%d steps, at most %d bodies told of", trace.Len(), most)
		if most == 0 {
			t.Error("no cut came after the first word of the writer")
		}
	})
}

// recordWriter runs TestKillWriter under strace until it has told of some
// bodies, and kills it.
func recordWriter(t *testing.T, c store.Config) *testpeer.Trace {
	log := filepath.Join(t.TempDir(), "trace")
	own := exec.Command(os.Args[0], "-test.run=^TestKillWriter$")
	own.Env = append(os.Environ(), killDir+"="+c.Dir, killURL+"="+c.URL, killCount+"=20")
	cmd := testpeer.Strace(t.Context(), t, log, own)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	trace, err := testpeer.ReadTrace(log, c.Dir)
	must(t, err)
	return trace
}

func cutAt(t *testing.T, c store.Config, trace *testpeer.Trace, at int, chance testpeer.Chance) (told int) {
	var refs []store.BodyRef
	trace.Told(at, func(fd int, text string) {
		var ref store.BodyRef
		if fd == 1 && json.Unmarshal([]byte(text), &ref) == nil {
			refs = append(refs, ref)
		}
	})
	after := store.Config{Dir: filepath.Join(t.TempDir(), "after"), URL: c.URL}
	must(t, trace.Cut(at, chance, after.Dir))
	s, err := store.Open(t.Context(), after)
	must(t, err)
	defer s.Close()
	for _, ref := range refs {
		if err := holds(t.Context(), s, ref); err != nil {
			t.Errorf("%+v: %v", ref, err)
		}
	}
	if c.URL != "" {
		return len(refs) // PostgreSQL has gone on beyond the cut: it may name files of later
	}
	found, err := s.Verify(t.Context())
	must(t, err)
	for _, p := range found {
		t.Error(p)
	}
	return len(refs)
}

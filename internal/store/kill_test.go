package store_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

const (
	killDir   = "SALLYPORT_TEST_KILL_DIR"
	killURL   = "SALLYPORT_TEST_KILL_URL"
	killCount = "SALLYPORT_TEST_KILL_COUNT" // bodies of each of the writers; without it they do not end
	killsEnv  = "SALLYPORT_TEST_KILLS"      // how many rounds, 5 without it
)

// kills is the number of rounds of a kill test.
func kills(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv(killsEnv))
	if os.Getenv(killsEnv) == "" {
		return 5
	}
	must(t, err)
	return n
}

// TestKill kills a process that keeps bodies, at random moments: every body
// whose commit it had told us of is there afterwards.
func TestKill(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		var told []store.BodyRef
		for range kills(t) {
			told = append(told, killedWriter(t, c, time.Duration(20+rand.IntN(200))*time.Millisecond)...)
			s, err := store.Open(t.Context(), c)
			must(t, err)
			for _, ref := range told {
				if err := holds(t.Context(), s, ref); err != nil {
					t.Errorf("%+v: %v", ref, err)
				}
			}
			if found, err := s.Verify(t.Context()); err != nil || len(found) > 0 {
				t.Error(found, err)
			}
			must(t, s.Close())
		}
		t.Logf("%d bodies told of", len(told))
		if len(told) == 0 {
			t.Error("the writer wrote nothing")
		}
	})
}

// killedWriter runs a writer for a while after its first word and kills it; it
// returns the references that the writer told us of.
func killedWriter(t *testing.T, c store.Config, life time.Duration) []store.BodyRef {
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillWriter$")
	cmd.Env = append(os.Environ(), killDir+"="+c.Dir, killURL+"="+c.URL)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var told []store.BodyRef
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if len(told) == 0 {
			time.AfterFunc(life, func() { cmd.Process.Kill() })
		}
		var ref store.BodyRef
		// The last line may have been cut by the kill.
		if json.Unmarshal(lines.Bytes(), &ref) == nil {
			told = append(told, ref)
		}
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	return told
}

// TestKillWriter is the process that TestKill kills; alone it does nothing.
func TestKillWriter(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("only as a child of TestKill")
	}
	count := math.MaxInt
	if v := os.Getenv(killCount); v != "" {
		var err error
		count, err = strconv.Atoi(v)
		must(t, err)
	}
	s, err := store.Open(context.Background(), store.Config{Dir: dir, URL: os.Getenv(killURL)})
	must(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range count {
				ref, err := keep(context.Background(), s, fmt.Sprint("tenant-", i%3), rand.IntN(2)*60000+rand.IntN(20000))
				must(t, err)
				if rand.IntN(3) == 0 {
					must(t, drop(context.Background(), s, ref))
					continue
				}
				line, err := json.Marshal(ref)
				must(t, err)
				os.Stdout.Write(append(line, '\n')) // one write, so that lines do not mix
			}
		})
	}
	wg.Wait()
	must(t, s.Close())
}

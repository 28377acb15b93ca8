package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSynced watches the gateway's system calls (and PostgreSQL's): each 250
// after a final dot follows a sync that had covered the message, and for a
// large body also syncs of its file and of the directories that name it.
func TestSynced(t *testing.T) {
	eachRecording(t, 2*time.Second, func(t *testing.T, r *recording) {
		given, err := promises(r.calls, r.p.smtp)
		if err != nil {
			t.Fatal(err)
		}
		if len(given) < 50 || len(r.large.ids) < 3 {
			t.Fatalf("only %d messages were accepted, %d large ones: %s", len(given), len(r.large.ids), r.p.log)
		}
		j, err := readJournal(r.storeCalls(), r.commits)
		if err != nil {
			t.Fatal(err)
		}
		report(t, j.broken(given))
		report(t, brokenBodies(t, r, given))
		t.Logf("%d messages answered with 250, %d of them with a body in a file; %d calls on record", len(given), len(r.large.ids), len(r.calls)+len(r.pgCalls))
	})
}

func brokenBodies(t *testing.T, r *recording, given []promise) []string {
	t.Helper()
	b, err := readBodies(r.calls, r.p.dir+"/bodies")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for seq, id := range r.large.ids {
		i := slices.IndexFunc(given, func(p promise) bool { return p.id == id })
		if i < 0 {
			t.Fatalf("the 250 for %s is not on record", id)
		}
		if s := b.broken(seq, largeSize, given[i].at, r.p.dir); s != "" {
			all = append(all, s)
		}
	}
	return all
}

func report(t *testing.T, broken []string) {
	t.Helper()
	for i, s := range broken {
		if i == 5 {
			t.Errorf("and %d more", len(broken)-i)
			return
		}
		t.Error(s)
	}
}

const (
	madeUp   = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	promised = `9  1.000900 write(7<TCP:[127.0.0.1:25->127.0.0.1:999]>, "250 2.0.0 Accepted as ` + madeUp + `", 48) = 48 <0.000010>`
	logged   = `9  1.000100 pwrite64(5</d/db/road.db-wal>, "..` + madeUp + `..", 30, 4096) = 30 <0.000010>`
)

// TestSyncedNotices shows violations to what reads the record.
func TestSyncedNotices(t *testing.T) {
	for _, c := range []struct {
		name, record, says string
	}{
		{"kept", logged + "\n" + `9  1.000200 fdatasync(5</d/db/road.db-wal>) = 0 <0.000100>`, ""},
		{"kept, another thread between", logged + "\n" + `8  1.000200 fdatasync(5</d/db/road.db-wal> <unfinished ...>
9  1.000210 fsync(6</d/db>) = 0 <0.000010>
8  1.000300 <... fdatasync resumed>) = 0 <0.000100>`, ""},
		{"not written", ``, "before it was written"},
		{"not synced", logged, "was synced"},
		{"synced before it was written", `9  1.000010 fdatasync(5</d/db/road.db-wal>) = 0 <0.000010>` + "\n" + logged, "was synced"},
		{"the sync began within the write", `9  1.000100 pwrite64(5</d/db/road.db-wal>, "` + madeUp + `", 26, 4096 <unfinished ...>
8  1.000110 fdatasync(5</d/db/road.db-wal>) = 0 <0.000010>
9  1.000130 <... pwrite64 resumed>) = 26 <0.000030>`, "was synced"},
		{"the sync ends too late", logged + "\n" + `8  1.000200 fdatasync(5</d/db/road.db-wal> <unfinished ...>
9  1.000210 fsync(6</d/db>) = 0 <0.000010>
8  1.001300 <... fdatasync resumed>) = 0 <0.001100>`, "was synced"},
		{"the sync never ends", logged + "\n" + `8  1.000200 fdatasync(5</d/db/road.db-wal> <unfinished ...>`, "was synced"},
		{"the sync failed", logged + "\n" + `9  1.000200 fdatasync(5</d/db/road.db-wal>) = -1 EIO (Input/output error) <0.000100>`, "was synced"},
		{"another file was synced", logged + "\n" + `9  1.000200 fdatasync(5</d/db/trace.db-wal>) = 0 <0.000100>`, "was synced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls, err := parseRecord(strings.NewReader(strings.TrimPrefix(c.record+"\n", "\n") + promised + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			given, err := promises(calls, "127.0.0.1:25")
			if err != nil || len(given) != 1 || given[0].id != madeUp {
				t.Fatalf("promises: %v, %v", given, err)
			}
			j, err := readJournal(calls, func(file string) bool { return file == "/d/db/road.db-wal" })
			if err != nil {
				t.Fatal(err)
			}
			expect(t, strings.Join(j.broken(given), "; "), c.says)
		})
	}
}

// expect compares what was found with the words that it must have; no words
// are for nothing found.
func expect(t *testing.T, got, says string) {
	t.Helper()
	if (says == "") != (got == "") || !strings.Contains(got, says) {
		t.Errorf("found %q, want words %q", got, says)
	}
}

// TestSyncedNoticesBodies does so for bodies that are files.
func TestSyncedNoticesBodies(t *testing.T) {
	var (
		create = `9  1.000010 openat(AT_FDCWD</>, "/d/bodies/+incoming/X", O_WRONLY|O_CREAT|O_EXCL, 0640) = 5</d/bodies/+incoming/X> <0.000010>` + "\n"
		fill   = `9  1.000100 write(5</d/bodies/+incoming/X>, "` + hexed("Subject: s1\r\n") + `", 13) = 13 <0.000010>` + "\n"
		mkdir  = `9  1.000150 mkdirat(AT_FDCWD</>, "/d/bodies/acme/01", 0750) = 0 <0.000010>` + "\n"
		move   = `9  1.000200 renameat(AT_FDCWD</>, "/d/bodies/+incoming/X", AT_FDCWD</>, "/d/bodies/acme/01/X") = 0 <0.000010>` + "\n"
		sync   = `9  1.000300 fdatasync(5</d/bodies/acme/01/X>) = 0 <0.000010>` + "\n"
		dir    = `9  1.000400 fsync(6</d/bodies/acme/01>) = 0 <0.000010>` + "\n"
		parent = `9  1.000500 fsync(6</d/bodies/acme>) = 0 <0.000010>` + "\n"
		again  = `9  1.000550 openat(AT_FDCWD</>, "/d/bodies/acme/01/X", O_WRONLY) = 5</d/bodies/acme/01/X> <0.000001>` + "\n" + strings.ReplaceAll(strings.ReplaceAll(fill, "+incoming", "acme/01"), "1.000100", "1.000560")
		late   = `9  1.000600 write(5</d/bodies/acme/01/X>, "more", 4) = 4 <0.000010>` + "\n"
	)
	for _, c := range []struct {
		name, record string
		size         int
		says         string
	}{
		{"kept", create + fill + mkdir + move + sync + dir + parent, 13, ""},
		{"no file", "", 13, "no file"},
		{"too short", create + fill + mkdir + move + sync + dir + parent, 14, "of 14"},
		{"not synced", create + fill + mkdir + move + dir + parent, 13, "the file was not synced"},
		{"written after the sync", create + fill + mkdir + move + sync + dir + parent + late, 17, "the file was not synced"},
		{"no tenant's name", create + fill + strings.ReplaceAll(sync, "acme/01", "+incoming"), 13, "no name of a tenant"},
		{"written over", create + strings.ReplaceAll(fill, hexed("s1"), hexed("s0")) + mkdir + move + sync + dir + parent + again, 13, "the file was not synced"},
		{"directory not synced", create + fill + mkdir + move + sync + parent, 13, "a name in /d/bodies/acme/01 was not synced"},
		{"directory's own name not synced", create + fill + mkdir + move + sync + dir, 13, "a name in /d/bodies/acme was not synced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls, err := parseRecord(strings.NewReader(c.record))
			if err != nil {
				t.Fatal(err)
			}
			b, err := readBodies(calls, "/d/bodies")
			if err != nil {
				t.Fatal(err)
			}
			expect(t, b.broken("s1", c.size, 1_000_900, "/d"), c.says)
		})
	}
}

// hexed writes as strace -xx does.
func hexed(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		fmt.Fprintf(&out, `\x%02x`, b)
	}
	return out.String()
}

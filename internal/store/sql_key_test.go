package store_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// oneRow is what a KeySQL may be: columns of one table, and equalities.
var (
	oneRow    = regexp.MustCompile(`^SELECT ([^()]+) FROM (\w+) WHERE (\w+ = \$\d+(?: AND \w+ = \$\d+)*)$`)
	condition = regexp.MustCompile(`(\w+) = `)
)

// checkKey says what is wrong with a KeySQL, of which nobody can be sure that
// it reads one row by its key.
func checkKey(text string, keys map[string][]string) []string {
	m := oneRow.FindStringSubmatch(strings.Join(strings.Fields(text), " "))
	if m == nil {
		return []string{"not of the form SELECT columns FROM table WHERE column = $n AND …"}
	}
	var named []string
	for _, c := range condition.FindAllStringSubmatch(m[3], -1) {
		named = append(named, c[1])
	}
	key := keys[m[2]]
	if len(key) == 0 {
		return []string{"the table " + m[2] + " has no primary key"}
	}
	for _, column := range key {
		if !slices.Contains(named, column) {
			return []string{"the column " + column + " of the primary key is not named"}
		}
	}
	return nil
}

var (
	table     = regexp.MustCompile(`(?s)CREATE TABLE (\w+) \((.*?)\n\)`)
	keyColumn = regexp.MustCompile(`(?m)^\s*(\w+)\s.*PRIMARY KEY`)
	keyOf     = regexp.MustCompile(`(?m)^\s*PRIMARY KEY \(([^)]+)\)`)
)

// primaryKeys are the columns of each table's, as the migrations have them.
func primaryKeys(t *testing.T) map[string][]string {
	files, err := filepath.Glob("migrations/*/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	keys := map[string][]string{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range table.FindAllStringSubmatch(string(text), -1) {
			if k := keyOf.FindStringSubmatch(m[2]); k != nil {
				keys[m[1]] = strings.Split(strings.ReplaceAll(k[1], " ", ""), ",")
			} else if k := keyColumn.FindStringSubmatch(m[2]); k != nil {
				keys[m[1]] = []string{k[1]}
			}
		}
	}
	return keys
}

func TestSQLKeys(t *testing.T) {
	keys := primaryKeys(t)
	if got := keys["body"]; !slices.Equal(got, []string{"tenant", "id"}) {
		t.Fatalf("the key of body is read as %q", got)
	}
	for text, ok := range map[string]bool{
		`SELECT data FROM body WHERE tenant = $1 AND id = $2`:                      true,
		`SELECT data, size FROM body WHERE tenant = $1 AND size = $3 AND id = $2`:  true,
		`SELECT state FROM item WHERE tenant = $1 AND id = $2`:                     true,
		`SELECT data FROM body WHERE tenant = $1`:                                  false,
		`SELECT data FROM body WHERE tenant = $1 AND id > $2`:                      false,
		`SELECT data FROM body WHERE tenant = $1 AND id = $2 OR size = $3`:         false,
		`SELECT COUNT(*) FROM body WHERE tenant = $1 AND id = $2`:                  false,
		`SELECT due FROM item WHERE tenant = $1 AND destination = $2`:              false,
		`SELECT data FROM body WHERE tenant = $1 AND id = $2 ORDER BY id LIMIT 1`:  false,
		`SELECT a.data FROM body a JOIN item b ON a.id = b.id WHERE a.tenant = $1`: false,
		`DELETE FROM body WHERE tenant = $1 AND id = $2`:                           false,
		`SELECT a FROM nothing WHERE tenant = $1 AND id = $2`:                      false,
	} {
		if problems := checkKey(text, keys); (len(problems) == 0) != ok {
			t.Errorf("%s: %q", text, problems)
		}
	}
}

package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// words of SQL: names with their qualifier, placeholders, literals, signs.
var words = regexp.MustCompile(`'(?:[^']|'')*'|"[^"]*"|\$\d+|[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_*][A-Za-z_0-9]*)?|[0-9]+|<>|<=|>=|\|\||.`)

// content are the columns that the road must not read or change, and fewer
// that nobody reads across tenants (an operator's list of messages has
// subjects).
func content(kind string) []string {
	switch kind {
	case "RoadSQL":
		return []string{"data", "content", "subject", "headers"}
	case "KeeperSQL": // the keeper reads what it keeps
		return nil
	}
	return []string{"data", "content", "headers"}
}

// scope is one SELECT, UPDATE, DELETE or INSERT without those inside it.
type scope struct {
	words []string
	depth []int // of parentheses inside the scope
}

// checkStatement returns what is wrong with a statement.
func checkStatement(kind, text string) []string {
	var list []string
	for _, w := range words.FindAllString(text, -1) {
		if strings.TrimSpace(w) != "" {
			list = append(list, w)
		}
	}
	var problems []string
	if slices.Contains(list, "?") {
		problems = append(problems, "placeholders are $1, $2 …")
	}
	if slices.Contains(list, ";") {
		problems = append(problems, "one constant is one statement")
	}
	views := commonTables(list)
	for _, s := range scopes(list) {
		problems = append(problems, s.check(kind, views)...)
	}
	return problems
}

// scopes cuts a statement at its subselects and set operators.
func scopes(list []string) []*scope {
	top := &scope{}
	all, stack := []*scope{top}, []*scope{top}
	depth := []int{0}
	for i, w := range list {
		now, d := stack[len(stack)-1], depth[len(depth)-1]
		switch strings.ToUpper(w) {
		case "(":
			if i+1 < len(list) && strings.EqualFold(list[i+1], "SELECT") {
				now.add("()", d)
				now, d = &scope{}, 0
				all = append(all, now)
			} else {
				d++
				now.add(w, d)
			}
			stack, depth = append(stack, now), append(depth, d)
			continue
		case ")":
			if len(stack) > 1 {
				if stack[len(stack)-2] == now {
					now.add(w, d)
				}
				stack, depth = stack[:len(stack)-1], depth[:len(depth)-1]
			}
			continue
		case "UNION", "INTERSECT", "EXCEPT":
			fresh := &scope{}
			all = append(all, fresh)
			stack[len(stack)-1] = fresh
			continue
		}
		now.add(w, d)
	}
	return all
}

func (s *scope) add(w string, d int) { s.words, s.depth = append(s.words, w), append(s.depth, d) }

// commonTables are the names that WITH gives to subselects.
func commonTables(list []string) []string {
	var names []string
	for i := 1; i+1 < len(list); i++ {
		if strings.EqualFold(list[i], "AS") && list[i+1] == "(" {
			names = append(names, strings.ToLower(list[i-1]))
		}
	}
	return names
}

func (s *scope) index(from int, word string) int {
	for i := from; i < len(s.words); i++ {
		if strings.EqualFold(s.words[i], word) {
			return i
		}
	}
	return -1
}

func (s *scope) has(word string) bool { return s.index(0, word) >= 0 }

// verb is what the scope does; WITH does what follows its subselects.
func (s *scope) verb() string {
	for i, w := range s.words {
		if u := strings.ToUpper(w); slices.Contains([]string{"SELECT", "UPDATE", "DELETE", "INSERT"}, u) && s.depth[i] == 0 {
			return u
		}
	}
	return ""
}

func (s *scope) check(kind string, views []string) []string {
	verb := s.verb()
	var problems []string
	if verb == "" && len(s.words) > 0 {
		return []string{fmt.Sprintf("neither SELECT, INSERT, UPDATE nor DELETE: %s …", strings.Join(s.words[:min(4, len(s.words))], " "))}
	}
	if kind == "TenantSQL" || kind == "KeySQL" {
		if verb == "INSERT" {
			problems = append(problems, s.insert()...)
		} else {
			problems = append(problems, s.where(views)...)
		}
	} else {
		problems = append(problems, s.noContent(kind, verb)...)
	}
	if set := s.index(0, "SET"); set >= 0 && s.index(set, "tenant") == set+1 {
		problems = append(problems, "a row never changes its tenant")
	}
	return problems
}

// keeperTables are the tables that the keeper's migrations make.
func keeperTables(t *testing.T) []string {
	files, err := filepath.Glob("migrations/keeper/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var names []string
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range table.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// checkKeeper wants the keeper's tables in a KeeperSQL, and nowhere else.
func checkKeeper(kind, text string, own []string) []string {
	list := words.FindAllString(text, -1)
	list = slices.DeleteFunc(list, func(w string) bool { return strings.TrimSpace(w) == "" })
	views := commonTables(list)
	var problems []string
	for _, s := range scopes(list) {
		for _, name := range s.tables() {
			if name == "()" || slices.Contains(views, name) || slices.Contains(own, name) == (kind == "KeeperSQL") {
				continue
			}
			problems = append(problems, fmt.Sprintf("the table %s is not for a %s", name, kind))
		}
	}
	return problems
}

// TestKeeperRules shows that the wall between the databases can refuse.
func TestKeeperRules(t *testing.T) {
	own := []string{"ledger_entry"}
	for _, c := range []struct {
		kind, text string
		ok         bool
	}{
		{"KeeperSQL", `SELECT idx FROM ledger_entry WHERE idx = $1`, true},
		{"KeeperSQL", `INSERT INTO ledger_entry (idx) VALUES ($1) ON CONFLICT (idx) DO UPDATE SET idx = $1`, true},
		{"KeeperSQL", `UPDATE ledger_entry SET payload = NULL WHERE idx < $1`, true},
		{"KeeperSQL", `SELECT id FROM item`, false},
		{"KeeperSQL", `SELECT idx FROM ledger_entry WHERE idx IN (SELECT id FROM item)`, false},
		{"KeeperSQL", `DELETE FROM outbox`, false},
		{"OperatorSQL", `SELECT idx FROM ledger_entry`, false},
		{"RoadSQL", `INSERT INTO ledger_entry (idx) VALUES ($1)`, false},
		{"TenantSQL", `SELECT idx FROM ledger_entry WHERE tenant = $1`, false},
		{"TenantSQL", `SELECT id FROM item WHERE tenant = $1`, true},
	} {
		if p := checkKeeper(c.kind, c.text, own); (len(p) == 0) != c.ok {
			t.Errorf("%s %s: %q", c.kind, c.text, p)
		}
	}
}

// tables are the tables of FROM, JOIN and UPDATE.
func (s *scope) tables() []string {
	var names []string
	for i, w := range s.words {
		u := strings.ToUpper(w)
		if (u == "FROM" || u == "JOIN" || u == "UPDATE" && i == 0 || u == "INTO") && i+1 < len(s.words) {
			names = append(names, strings.ToLower(s.words[i+1]))
		}
	}
	return names
}

func isTenant(w string) bool {
	w = strings.ToLower(w)
	return w == "tenant" || strings.HasSuffix(w, ".tenant")
}

// where wants "tenant = $1" among the conditions that all must hold, and for
// each further table one more binding.
func (s *scope) where(views []string) []string {
	own := slices.DeleteFunc(s.tables(), func(name string) bool { return name == "()" || slices.Contains(views, name) })
	if len(own) == 0 {
		return nil
	}
	bound, joined, or := 0, 0, false
	for i := s.index(0, "FROM") + 1; i < len(s.words); i++ {
		or = or || strings.EqualFold(s.words[i], "OR") && s.depth[i] == 0
		if s.words[i] != "=" || i+1 >= len(s.words) || s.depth[i] != 0 {
			continue
		}
		a, b := s.words[i-1], s.words[i+1]
		switch {
		case isTenant(a) && b == "$1", isTenant(b) && a == "$1":
			bound++
		case isTenant(a) && isTenant(b):
			joined++
		}
	}
	var problems []string
	if bound == 0 {
		problems = append(problems, "no tenant = $1 for "+strings.Join(own, ", "))
	}
	if bound > 0 && bound+joined < len(own) {
		problems = append(problems, "not every table is bound to the tenant: "+strings.Join(own, ", "))
	}
	if or {
		problems = append(problems, "OR outside of parentheses")
	}
	return problems
}

// insert wants $1 where the column tenant is, in every row, and an ON CONFLICT
// that cannot reach another tenant's row.
func (s *scope) insert() []string {
	open := s.index(0, "(")
	if open < 0 {
		return []string{"INSERT without a list of columns"}
	}
	shut := s.index(open, ")")
	columns := slices.DeleteFunc(slices.Clone(s.words[open+1:shut]), func(w string) bool { return w == "," })
	place := slices.IndexFunc(columns, isTenant)
	if place < 0 {
		return []string{"INSERT without the column tenant"}
	}
	var problems []string
	start := s.index(shut, "VALUES")
	if start < 0 {
		start = s.index(shut, "SELECT")
	}
	for _, row := range rowsOf(s, start) {
		if place >= len(row) || row[place] != "$1" {
			problems = append(problems, "INSERT does not give $1 to the column tenant")
		}
	}
	if on := s.index(shut, "CONFLICT"); on >= 0 && s.has("DO") && s.index(on, "UPDATE") >= 0 {
		end := s.index(on, ")")
		if end < 0 || !slices.ContainsFunc(s.words[on:end], isTenant) {
			problems = append(problems, "ON CONFLICT DO UPDATE without tenant in its key")
		}
	}
	return problems
}

// rowsOf are the values of an INSERT, row by row and one word (the first) a
// value.
func rowsOf(s *scope, start int) [][]string {
	var rows [][]string
	selects := strings.EqualFold(s.words[start], "SELECT")
	level := 1
	if selects {
		level = 0
		rows = append(rows, nil)
	}
	fresh := selects
	for i := start + 1; i < len(s.words); i++ {
		w, d := s.words[i], s.depth[i]
		if u := strings.ToUpper(w); d == 0 && (u == "ON" || u == "RETURNING" || u == "FROM") {
			break
		}
		switch {
		case !selects && w == "(" && d == 1:
			rows, fresh = append(rows, nil), true
		case d == level && w == ",":
			fresh = true
		case fresh && len(rows) > 0:
			rows[len(rows)-1] = append(rows[len(rows)-1], w)
			fresh = false
		}
	}
	return rows
}

// noContent wants no column of content to be read or changed.
func (s *scope) noContent(kind, verb string) []string {
	var problems []string
	read := slices.Clone(s.words)
	if verb == "INSERT" {
		read = nil
		if r := s.index(0, "RETURNING"); r >= 0 {
			read = s.words[r:]
		}
	}
	for i, w := range read {
		name := strings.ToLower(w[strings.LastIndex(w, ".")+1:])
		if slices.Contains(content(kind), name) {
			problems = append(problems, "reads or changes content: "+w)
		}
		if name == "*" && (i == 0 || read[i-1] != "(") && (i+1 >= len(read) || !arithmetic(read[i+1]) || strings.EqualFold(read[i-1], "SELECT")) {
			problems = append(problems, "names no columns: "+w)
		}
	}
	return problems
}

func arithmetic(next string) bool { return next != "," && !strings.EqualFold(next, "FROM") }

// TestSQLRules shows that the rules can refuse.
func TestSQLRules(t *testing.T) {
	for _, c := range []struct {
		kind, text string
		ok         bool
	}{
		{"TenantSQL", `SELECT a FROM t WHERE tenant = $1 AND b = $2`, true},
		{"TenantSQL", `SELECT a FROM t x WHERE x.tenant = $1 AND (b = $2 OR c = $3)`, true},
		{"TenantSQL", `SELECT a FROM t WHERE b = $2`, false},
		{"TenantSQL", `SELECT a FROM t WHERE tenant = $2`, false},
		{"TenantSQL", `SELECT a FROM t WHERE tenant = $1 OR b = $2`, false},
		{"TenantSQL", `SELECT a FROM t WHERE (tenant = $1 OR b = $2)`, false},
		{"TenantSQL", `SELECT a FROM t WHERE tenant = $1 AND id IN (SELECT id FROM u WHERE b = 1)`, false},
		{"TenantSQL", `SELECT a FROM t WHERE tenant = $1 AND id IN (SELECT id FROM u WHERE tenant = $1)`, true},
		{"TenantSQL", `SELECT a FROM t JOIN u ON u.id = t.id WHERE t.tenant = $1`, false},
		{"TenantSQL", `SELECT a FROM t JOIN u ON u.tenant = t.tenant AND u.id = t.id WHERE t.tenant = $1`, true},
		{"TenantSQL", `SELECT a FROM t WHERE tenant = $1 UNION SELECT a FROM u`, false},
		{"TenantSQL", `UPDATE t SET a = $2 WHERE tenant = $1`, true},
		{"TenantSQL", `UPDATE t SET a = $2 WHERE id = $3`, false},
		{"TenantSQL", `UPDATE t SET tenant = $1 WHERE tenant = $1`, false},
		{"TenantSQL", `DELETE FROM t`, false},
		{"TenantSQL", `INSERT INTO t (tenant, a) VALUES ($1, $2)`, true},
		{"TenantSQL", `INSERT INTO t (a, tenant) VALUES (lower($2), $1), ($3, $1) ON CONFLICT (tenant, a) DO UPDATE SET a = $2`, true},
		{"TenantSQL", `INSERT INTO t (a, tenant) VALUES ($1, $2)`, false},
		{"TenantSQL", `INSERT INTO t (a) VALUES ($1)`, false},
		{"TenantSQL", `INSERT INTO t (tenant, a) VALUES ($1, $2) ON CONFLICT (a) DO UPDATE SET a = $2`, false},
		{"TenantSQL", `INSERT INTO t (tenant, a) VALUES ($1, $2) ON CONFLICT (a) DO NOTHING`, true},
		{"TenantSQL", `PRAGMA writable_schema = 1`, false},
		{"TenantSQL", `SELECT a FROM t WHERE tenant = ?`, false},
		{"TenantSQL", `DELETE FROM t WHERE tenant = $1; DELETE FROM u`, false},
		{"RoadSQL", `SELECT id, due FROM item WHERE state = 1 ORDER BY due LIMIT $1`, true},
		{"RoadSQL", `SELECT COUNT(*), MAX(a * 2) FROM item`, true},
		{"RoadSQL", `SELECT * FROM item`, false},
		{"RoadSQL", `SELECT i.*, d.due FROM item i`, false},
		{"RoadSQL", `SELECT b.data FROM body b`, false},
		{"RoadSQL", `INSERT INTO body (tenant, data) VALUES ($1, $2)`, true},
		{"RoadSQL", `INSERT INTO body (tenant, data) VALUES ($1, $2) RETURNING data`, false},
		{"RoadSQL", `UPDATE item SET tenant = $1`, false},
		{"RoadSQL", `SELECT subject FROM message`, false},
		{"OperatorSQL", `SELECT subject FROM message`, true},
		{"OperatorSQL", `SELECT data FROM body`, false},
		{"OperatorSQL", `SELECT tenant, COUNT(*) FROM item GROUP BY tenant`, true},
		{"KeeperSQL", `SELECT data FROM key_sealed WHERE id = $1`, true},
		{"KeeperSQL", `SELECT * FROM key_sealed`, false},
		{"KeeperSQL", `DROP TABLE key_sealed`, false},
	} {
		if p := checkStatement(c.kind, c.text); (len(p) == 0) != c.ok {
			t.Errorf("%s %s: %q", c.kind, c.text, p)
		}
	}
}

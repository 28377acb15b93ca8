package store_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file reads every SQL constant of the tree and checks what doc.go says
// of the doors. The compiler has checked which constant goes through
// which door.

// statement is one constant with a type of store's.
type statement struct {
	where string // file:line
	kind  string // TenantSQL, KeySQL, RoadSQL, OperatorSQL or KeeperSQL
	text  string
}

func TestSQLOfTheTree(t *testing.T) {
	all, problems := readTree(t, filepath.Join("..", ".."))
	if len(all) < 5 {
		t.Fatalf("only %d statements found: the reader is broken", len(all))
	}
	keys, own := primaryKeys(t), keeperTables(t)
	for _, s := range all {
		found := append(checkStatement(s.kind, s.text), checkKeeper(s.kind, s.text, own)...)
		if s.kind == "KeySQL" {
			found = append(found, checkKey(s.text, keys)...)
		}
		for _, p := range found {
			problems = append(problems, s.where+": "+p)
		}
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// readTree parses every package below internal/ and cmd/.
func readTree(t *testing.T, root string) (all []statement, problems []string) {
	dirs := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			dirs[filepath.Dir(path)] = append(dirs[filepath.Dir(path)], path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		s, p := readPackage(t, dirs[dir])
		all, problems = append(all, s...), append(problems, p...)
	}
	return all, problems
}

// room is one package being read.
type room struct {
	set      *token.FileSet
	own      bool // store itself, where the types have no qualifier
	consts   map[string]ast.Expr
	found    []statement
	problems []string
}

func readPackage(t *testing.T, files []string) ([]statement, []string) {
	r := &room{set: token.NewFileSet(), consts: map[string]ast.Expr{}}
	var parsed []*ast.File
	for _, name := range files {
		f, err := parser.ParseFile(r.set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		r.own = f.Name.Name == "store"
		parsed = append(parsed, f)
	}
	for _, f := range parsed {
		ast.Inspect(f, func(n ast.Node) bool { return r.collect(n) })
	}
	for _, f := range parsed {
		ast.Inspect(f, func(n ast.Node) bool { return r.check(n) })
	}
	return r.found, r.problems
}

func (r *room) at(n ast.Node) string {
	p := r.set.Position(n.Pos())
	return fmt.Sprintf("%s:%d", strings.TrimPrefix(p.Filename, "../../"), p.Line)
}

func (r *room) collect(n ast.Node) bool {
	if g, ok := n.(*ast.GenDecl); ok && g.Tok == token.CONST {
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			for i, value := range v.Values {
				r.consts[v.Names[i].Name] = value
			}
		}
	}
	return true
}

// sqlType is the name of one of the types, or "".
func (r *room) sqlType(e ast.Expr) string {
	name := ""
	switch x := e.(type) {
	case *ast.Ident:
		if r.own {
			name = x.Name
		}
	case *ast.SelectorExpr:
		if p, ok := x.X.(*ast.Ident); ok && p.Name == "store" {
			name = x.Sel.Name
		}
	}
	switch name {
	case "TenantSQL", "KeySQL", "RoadSQL", "OperatorSQL", "KeeperSQL":
		return name
	}
	return ""
}

var looksLikeSQL = regexp.MustCompile(`(?i)^\s*(SELECT\s|INSERT INTO\s|UPDATE\s+\S+\s+SET\s|DELETE FROM\s|WITH\s)`)

func (r *room) check(n ast.Node) bool {
	switch x := n.(type) {
	case *ast.GenDecl:
		for _, spec := range x.Specs {
			if v, ok := spec.(*ast.ValueSpec); ok {
				r.values(x.Tok, v)
			}
		}
	case *ast.CallExpr:
		r.call(x)
	}
	return true
}

func (r *room) values(tok token.Token, v *ast.ValueSpec) {
	kind := r.sqlType(v.Type)
	if kind != "" && tok == token.VAR {
		r.problems = append(r.problems, r.at(v)+": a statement must be a constant")
		return
	}
	for _, value := range v.Values {
		text, ok := r.eval(value)
		switch {
		case kind != "" && !ok:
			r.problems = append(r.problems, r.at(value)+": a statement that cannot be read here")
		case kind != "":
			r.found = append(r.found, statement{r.at(value), kind, text})
		case ok && !r.own && v.Type == nil && looksLikeSQL.MatchString(text):
			r.problems = append(r.problems, r.at(value)+": a statement without a type of store's")
		}
	}
}

// call refuses conversions, which would carry any text past this test, but for
// the one dialect word; and statements written where they are used.
func (r *room) call(c *ast.CallExpr) {
	if kind := r.sqlType(c.Fun); kind != "" && len(c.Args) == 1 {
		inner, ok := c.Args[0].(*ast.CallExpr)
		if ok {
			if f, ok := inner.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "SkipLocked" {
				return
			}
		}
		r.problems = append(r.problems, r.at(c)+": a conversion to "+kind)
		return
	}
	f, ok := c.Fun.(*ast.SelectorExpr)
	if !ok || r.own || !slices.Contains([]string{"Exec", "Query", "QueryRow", "Get"}, f.Sel.Name) {
		return
	}
	for _, arg := range c.Args[:min(2, len(c.Args))] {
		if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil && looksLikeSQL.MatchString(text) {
				r.problems = append(r.problems, r.at(arg)+": a statement that is no constant with a type of store's")
			}
		}
	}
}

// eval is the text of a constant expression.
func (r *room) eval(e ast.Expr) (string, bool) {
	switch x := e.(type) {
	case *ast.BasicLit:
		if x.Kind != token.STRING {
			return x.Value, x.Kind == token.INT
		}
		s, err := strconv.Unquote(x.Value)
		return s, err == nil
	case *ast.ParenExpr:
		return r.eval(x.X)
	case *ast.BinaryExpr:
		a, ok1 := r.eval(x.X)
		b, ok2 := r.eval(x.Y)
		return a + b, ok1 && ok2 && x.Op == token.ADD
	case *ast.Ident:
		if value, ok := r.consts[x.Name]; ok {
			return r.eval(value)
		}
	}
	return "", false
}

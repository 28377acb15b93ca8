// Package test holds the stories that cross rooms, and the rules of the house.
package test

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// module is the import path of the house.
const module = "github.com/sallyport-mail/sallyport/"

// source is one parsed file that is not a test.
type source struct {
	room string // folder below the root, with slashes
	path string
	file *ast.File
}

// sources parses every Go file of the tree that is not a test.
func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	fset := token.NewFileSet()
	var out []source
	err := walkGo(func(path string) error {
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", filepath.Dir(path))
		out = append(out, source{room: filepath.ToSlash(rel), path: path, file: f})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fset, out
}

// walkGo visits every Go file of the tree.
func walkGo(visit func(path string) error) error {
	return filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "testdata" || strings.HasPrefix(name, ".") && name != ".."):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		return visit(path)
	})
}

// imports are the project's own imports of a file, without the prefix.
func imports(f *ast.File) []string {
	var out []string
	for _, i := range f.Imports {
		path := strings.Trim(i.Path.Value, `"`)
		if own, ok := strings.CutPrefix(path, module); ok {
			out = append(out, strings.TrimPrefix(own, "internal/"))
		}
	}
	return out
}

// rows reads the table of docs/map.md that begins with the given head.
func rows(t *testing.T, head string) [][]string {
	t.Helper()
	f, err := os.Open("../docs/map.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out [][]string
	in := false
	s := bufio.NewScanner(f)
	for s.Scan() {
		line := s.Text()
		switch {
		case strings.HasPrefix(line, head):
			in = true
		case !strings.HasPrefix(line, "|"):
			in = false
		case in && !strings.HasPrefix(line, "|-"):
			var cells []string
			for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
				cells = append(cells, strings.TrimSpace(c))
			}
			out = append(out, cells)
		}
	}
	if len(out) == 0 {
		t.Fatalf("docs/map.md has no table that begins with %q", head)
	}
	return out
}

// TestMap holds the imports against the map, both ways.
func TestMap(t *testing.T) {
	_, files := sources(t)
	found := map[string]map[string]bool{}
	for _, s := range files {
		if found[s.room] == nil {
			found[s.room] = map[string]bool{}
		}
		for _, i := range imports(s.file) {
			found[s.room][i] = true
		}
	}
	drawn := map[string]bool{}
	for _, r := range rows(t, "| room | what it is") {
		room := strings.Trim(r[0], "`")
		drawn[room] = true
		if r[2] != "*" {
			compareRow(t, room, found[room], r[2])
		}
	}
	for room := range found {
		if !drawn[room] {
			t.Errorf("%s is not on docs/map.md", room)
		}
	}
}

// compareRow compares one room's imports with its row.
func compareRow(t *testing.T, room string, found map[string]bool, row string) {
	t.Helper()
	var allowed []string
	if row != "–" {
		allowed = strings.Split(row, ", ")
	}
	for i := range found {
		if !slices.Contains(allowed, i) {
			t.Errorf("%s imports %s, which docs/map.md does not allow it", room, i)
		}
	}
	for _, i := range allowed {
		if !found[i] {
			t.Errorf("docs/map.md says that %s imports %s, but it does not", room, i)
		}
	}
}

// TestWalls prints the reason of a wall that was broken.
func TestWalls(t *testing.T) {
	_, files := sources(t)
	direct := map[string][]string{}
	for _, s := range files {
		room := strings.TrimPrefix(s.room, "internal/")
		direct[room] = append(direct[room], imports(s.file)...)
	}
	for _, r := range rows(t, "| room | must not reach") {
		for _, room := range strings.Split(r[0], ", ") {
			room = strings.TrimPrefix(strings.Trim(room, "`"), "internal/")
			for _, banned := range strings.Split(r[1], ", ") {
				if slices.Contains(direct[room], banned) {
					t.Errorf("%s imports %s: %s", room, banned, r[2])
				}
			}
		}
	}
}

// TestDrivers keeps database drivers in store, and PKCS#11 in its room.
func TestDrivers(t *testing.T) {
	driver := regexp.MustCompile(`modernc\.org/sqlite|jackc/pgx|pressly/goose`)
	token := regexp.MustCompile(`(?i)crypto11|miekg/pkcs11`)
	_, files := sources(t)
	for _, s := range files {
		for _, i := range s.file.Imports {
			if driver.MatchString(i.Path.Value) && s.room != "internal/store" && s.room != "internal/testpeer" {
				t.Errorf("%s imports %s: only store knows drivers", s.path, i.Path.Value)
			}
			if token.MatchString(i.Path.Value) && s.room != "internal/keeper/pkcs11" {
				t.Errorf("%s imports %s: only keeper/pkcs11 knows tokens", s.path, i.Path.Value)
			}
		}
	}
}

// TestNoInit refuses init functions: what a room needs is constructed by the
// roof, in order.
func TestNoInit(t *testing.T) {
	fset, files := sources(t)
	for _, s := range files {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init function", fset.Position(f.Pos()))
			}
		}
	}
}

// TestNoMutableGlobals refuses assignments to package variables: state belongs
// to what the roof constructs. (The linker may set one: that is no code.)
func TestNoMutableGlobals(t *testing.T) {
	fset, files := sources(t)
	names := map[string]map[string]bool{}
	specs := map[any]bool{}
	for _, s := range files {
		if names[s.room] == nil {
			names[s.room] = map[string]bool{}
		}
		for _, spec := range packageVars(s.file) {
			specs[spec] = true
			for _, n := range spec.Names {
				names[s.room][n.Name] = true
			}
		}
	}
	for _, s := range files {
		ast.Inspect(s.file, func(n ast.Node) bool {
			for _, target := range targets(n) {
				id := base(target)
				if id == nil || id.Name == "_" || !names[s.room][id.Name] {
					continue
				}
				// The parser resolves names within a file; one it could not
				// resolve is declared in another file of the room.
				if id.Obj == nil || specs[id.Obj.Decl] {
					t.Errorf("%s: package variable %s is changed", fset.Position(n.Pos()), id.Name)
				}
			}
			return true
		})
	}
}

// packageVars are the variables declared at the top of a file.
func packageVars(f *ast.File) []*ast.ValueSpec {
	var out []*ast.ValueSpec
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
			for _, spec := range g.Specs {
				out = append(out, spec.(*ast.ValueSpec))
			}
		}
	}
	return out
}

// targets are the expressions that a statement changes, or whose address it
// takes.
func targets(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	}
	return nil
}

// base is the name that an expression starts from.
func base(e ast.Expr) *ast.Ident {
	switch e := e.(type) {
	case *ast.Ident:
		return e
	case *ast.IndexExpr:
		return base(e.X)
	case *ast.SelectorExpr:
		return base(e.X)
	case *ast.StarExpr:
		return base(e.X)
	case *ast.ParenExpr:
		return base(e.X)
	}
	return nil
}

// TestRoomsExplainThemselves asks each room for a package comment, and refuses
// rooms that are named after nothing.
func TestRoomsExplainThemselves(t *testing.T) {
	_, files := sources(t)
	documented := map[string]bool{}
	for _, s := range files {
		documented[s.room] = documented[s.room] || s.file.Doc != nil && len(s.file.Doc.Text()) > 80
		switch filepath.Base(s.room) {
		case "util", "utils", "common", "types", "helpers", "misc":
			t.Errorf("%s: a room is a noun of the domain", s.room)
		}
	}
	for room, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment that says what it is", room)
		}
	}
}

// maxFile is where a file wants a wall.
const maxFile = 700

// TestFilesStaySmall refuses files past maxFile lines, tests included.
func TestFilesStaySmall(t *testing.T) {
	err := walkGo(func(path string) error {
		raw, err := os.ReadFile(path)
		if n := strings.Count(string(raw), "\n"); n > maxFile {
			t.Errorf("%s has %d lines: a room that wants a wall?", path, n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

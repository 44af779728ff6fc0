package cassandra

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestStatementsNamesEachOne holds the list against the constants of the package, so that none is left out of what is
// measured and documented.
func TestStatementsNamesEachOne(t *testing.T) {
	listed := map[string]string{}
	for _, s := range Statements {
		if s.Table() == "" || s.Purpose == "" {
			t.Errorf("%s: table %q, purpose %q", s.Name, s.Table(), s.Purpose)
		}
		if listed[s.Name] != "" {
			t.Errorf("%s is listed twice", s.Name)
		}
		listed[s.Name] = s.CQL
	}
	found := constants(t)
	for name, text := range found {
		if listed[name] != text {
			t.Errorf("%s: listed as %q, is %q", name, listed[name], text)
		}
	}
	for name := range listed {
		if found[name] == "" {
			t.Errorf("%s is listed, and there is no such constant", name)
		}
	}
	if len(found) < 50 {
		t.Errorf("%d statements found in the package: the search is broken", len(found))
	}
}

var statementForm = regexp.MustCompile(`^(SELECT|INSERT|UPDATE|DELETE) `)

// constants gives the constants of the package that are statements, wherever they stand.
func constants(t *testing.T) map[string]string {
	t.Helper()
	files := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var list []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, file)
	}
	info := types.Info{Defs: map[*ast.Ident]types.Object{}}
	// Imports stay unknown: no statement is made of anything from elsewhere.
	check := types.Config{Error: func(error) {}}
	_, _ = check.Check("cassandra", files, list, &info)
	found := map[string]string{}
	for name, object := range info.Defs {
		c, ok := object.(*types.Const)
		if !ok || c.Val().Kind() != constant.String {
			continue
		}
		if text := constant.StringVal(c.Val()); statementForm.MatchString(text) {
			found[name.Name] = text
		}
	}
	return found
}

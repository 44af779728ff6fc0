// Package queries measures every CQL statement of package cassandra, on a keyspace of 30 days and 10,000 vehicles that it
// fills itself.
package queries

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Statement is a CQL statement that package cassandra runs on a table of the keyspace. It has the name of its constant.
type Statement struct {
	Name, CQL, Table, Purpose string
}

var (
	statementForm  = regexp.MustCompile(`^(SELECT|INSERT|UPDATE|DELETE) `)
	statementTable = regexp.MustCompile(`(?:FROM|INTO|UPDATE) (\w+)`)
	documented     = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]+) \\|")
)

// Document has the purpose of each statement, and the results.
const Document = "docs/queries.md"

// Statements reads the constants of package cassandra under a repository root, so that no statement stays unmeasured.
// The document gives their purposes and their order.
func Statements(root string) ([]Statement, error) {
	page, err := os.ReadFile(filepath.Join(root, Document))
	if err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(root, "cassandra", "*.go"))
	if err != nil {
		return nil, err
	}
	files := token.NewFileSet()
	var list []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			return nil, err
		}
		list = append(list, file)
	}
	info := types.Info{Defs: map[*ast.Ident]types.Object{}}
	check := types.Config{Error: func(error) {}} // imports stay unknown, and no statement needs one
	_, _ = check.Check("cassandra", files, list, &info)
	found := map[string]string{}
	for name, object := range info.Defs {
		c, ok := object.(*types.Const)
		if !ok || c.Val().Kind() != constant.String {
			continue
		}
		if text := constant.StringVal(c.Val()); statementForm.MatchString(text) && !strings.Contains(text, " system") {
			found[name.Name] = text
		}
	}
	var statements []Statement
	for _, row := range documented.FindAllStringSubmatch(string(page), -1) {
		if text, ok := found[row[1]]; ok {
			statements = append(statements, Statement{Name: row[1], CQL: text, Table: statementTable.FindStringSubmatch(text)[1], Purpose: row[2]})
			delete(found, row[1])
		}
	}
	if len(found) > 0 {
		return nil, fmt.Errorf("%s: add a row \"| `NAME` | purpose |\" for each of %s", Document, strings.Join(slices.Sorted(maps.Keys(found)), ", "))
	}
	return statements, nil
}

func (s Statement) writes() bool { return !strings.HasPrefix(s.CQL, "SELECT") }

// Package queries measures every CQL statement of package cassandra and of the dashboards, on a keyspace of 30 days and
// 10,000 vehicles that it fills itself.
package queries

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"strings"
)

// Statement is a CQL statement that package cassandra runs on a table of the keyspace.
type Statement struct {
	Name    string `json:"name"` // of its constant
	CQL     string `json:"cql"`
	Table   string `json:"table"`
	Purpose string `json:"purpose"`
}

var (
	statementForm  = regexp.MustCompile(`^(SELECT|INSERT|UPDATE|DELETE) `)
	statementTable = regexp.MustCompile(`(?:FROM|INTO|UPDATE) (\w+)`)
)

// Statements reads the constants of package cassandra under a repository root, so that no statement stays unmeasured.
// They are in the order of their purposes.
func Statements(root string) ([]Statement, error) {
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
	var problems []error
	for _, p := range purposes {
		text, ok := found[p.statement]
		if !ok {
			problems = append(problems, fmt.Errorf("purposes.go: package cassandra has no statement %s", p.statement))
			continue
		}
		table := statementTable.FindStringSubmatch(text)
		statements = append(statements, Statement{Name: p.statement, CQL: text, Table: table[1], Purpose: p.purpose})
		delete(found, p.statement)
	}
	for name := range found {
		problems = append(problems, fmt.Errorf("purposes.go: statement %s of package cassandra has no purpose; add one", name))
	}
	return statements, errors.Join(problems...)
}

func (s Statement) writes() bool { return !strings.HasPrefix(s.CQL, "SELECT") }

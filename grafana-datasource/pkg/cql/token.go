// Package cql validates the CQL statements that users write. It expands macros, accepts only a SELECT of whole
// partitions, and splits it into one statement per partition. It is pure: the caller passes the schema and the rules.
package cql

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// MaxText bounds a statement in bytes, before and after macro expansion.
const MaxText = 128 << 10

type kind int

const (
	word     kind = iota // a keyword or a name without quotes
	quoted               // a name in double quotes
	text                 // a string in single quotes
	constant             // a number, UUID, blob or duration
	symbol
	end
)

// token is a part of a statement. value is a word in lower case, or a quoted name or text without its quotes; from and
// to are its byte offsets in the statement; depth is the number of parentheses and brackets around it.
type token struct {
	kind     kind
	value    string
	from, to int
	depth    int
}

func (t token) is(value string) bool {
	return (t.kind == word || t.kind == symbol) && t.value == value
}

// name reports whether the token can name a column, table or keyspace.
func (t token) name() bool { return t.kind == word || t.kind == quoted }

var wordForm = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*`)

// forms are the forms of tokens; the first that matches counts. In a quoted text, a quote is written twice.
var forms = []struct {
	kind kind
	form *regexp.Regexp
}{
	{text, regexp.MustCompile(`^'(?:[^']|'')*'`)},
	{quoted, regexp.MustCompile(`^"(?:[^"]|"")*"`)},
	{constant, regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b`)},
	{constant, regexp.MustCompile(`^(0[xX][0-9a-fA-F]*|P[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}|` +
		`([0-9]+(?i:mo|ms|us|µs|ns|[ywdhms]))+|[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?)`)},
	{word, wordForm},
	{symbol, regexp.MustCompile(`^(<=|>=|!=|[()\[\]{},.=<>+*/%:;-])`)},
}

// tokens splits a statement. It rejects comments, because a user and the server could read them differently.
func tokens(statement string) ([]token, error) {
	if !utf8.ValidString(statement) {
		return nil, fmt.Errorf("statement: not valid UTF-8")
	}
	var list []token
	for at := 0; at < len(statement); {
		rest := statement[at:]
		switch c := rest[0]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			at++
			continue
		case strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "//"), strings.HasPrefix(rest, "/*"):
			return nil, fmt.Errorf("comment at %s: comments are not allowed; remove it", place(statement, at))
		}
		k, length := word, 0
		for _, f := range forms {
			if length = len(f.form.FindString(rest)); length > 0 {
				k = f.kind
				break
			}
		}
		if length == 0 {
			return nil, unexpected(statement, at)
		}
		// The server reads "1.allow" as a number and a word, so a number must not hide a word here.
		if k == constant && wordForm.MatchString(strings.TrimLeft(rest[length:], "0123456789")) {
			return nil, fmt.Errorf("number at %s: it is followed by a letter; write a space between them", place(statement, at))
		}
		value := strings.ToLower(rest[:length])
		if k == text || k == quoted {
			value = strings.ReplaceAll(rest[1:length-1], rest[:1]+rest[:1], rest[:1])
		}
		list = append(list, token{kind: k, value: value, from: at, to: at + length})
		at += length
	}
	return list, nil
}

func unexpected(statement string, at int) error {
	r, _ := utf8.DecodeRuneInString(statement[at:])
	switch r {
	case '\'', '"':
		return fmt.Errorf("quote at %s: it is not closed", place(statement, at))
	case '$':
		return fmt.Errorf("$ at %s: not a macro, and not a dashboard variable with a value; the macros are %s", place(statement, at), macroNames)
	case '?':
		return fmt.Errorf("? at %s: bind markers are not supported; write the value", place(statement, at))
	}
	return fmt.Errorf("character %q at %s: not part of a SELECT", r, place(statement, at))
}

// place formats a byte offset as line and column.
func place(statement string, at int) string {
	before := statement[:at]
	line := strings.Count(before, "\n")
	column := utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:])
	return fmt.Sprintf("line %d, column %d", line+1, column+1)
}

// shown shortens a part of a statement for an error message.
func shown(part string) string {
	const most = 80
	if len(part) > most {
		part = strings.ToValidUTF8(part[:most], "") + "…"
	}
	return part
}

package cql

import "slices"

const comment = "--"

// bare returns the parts of a statement outside of its strings: words in lower case, symbols, and one marker per comment.
// A number continues as long as letters and digits follow. It shares no code with the validator, so that tests can compare
// the two.
func bare(statement string) (found []string) {
	s := []rune(statement)
	at := func(i int) rune {
		if i < len(s) {
			return s[i]
		}
		return 0
	}
	digit := func(r rune) bool { return r >= '0' && r <= '9' }
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	for i := 0; i < len(s); {
		from := i
		switch c := s[i]; {
		case c == '\'' || c == '"':
			for i++; i < len(s) && s[i] != c; i++ {
			}
			i++
			found = append(found, string(c)) // a doubled quote yields two adjacent strings
		case c == '$' && at(i+1) == '$':
			for i += 2; i < len(s) && (s[i] != '$' || at(i+1) != '$'); i++ {
			}
			i += 2
			found = append(found, "'")
		case c == '-' && at(i+1) == '-', c == '/' && at(i+1) == '/':
			for i < len(s) && s[i] != '\n' && s[i] != '\r' {
				i++
			}
			found = append(found, comment)
		case c == '/' && at(i+1) == '*':
			for i += 2; i < len(s) && (s[i] != '*' || at(i+1) != '/'); i++ {
			}
			i += 2
			found = append(found, comment)
		case digit(c), letter(c), c == '_':
			for letter(at(i)) || digit(at(i)) || at(i) == '_' {
				i++
			}
			found = append(found, lower(s[from:i]))
		default:
			i++
			if !slices.Contains([]rune(" \t\r\n"), c) {
				found = append(found, string(c))
			}
		}
	}
	return found
}

func lower(s []rune) string {
	out := slices.Clone(s)
	for i, r := range out {
		if r >= 'A' && r <= 'Z' {
			out[i] = r + 'a' - 'A'
		}
	}
	return string(out)
}

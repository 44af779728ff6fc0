package telemetry_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestValidName(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"empty":               {"", false},
		"one letter":          {"a", true},
		"the longest":         {strings.Repeat("a", 128), true},
		"one more":            {strings.Repeat("a", 129), false},
		"all that may be":     {"ABCXYZabcxyz0189._:-", true},
		"a dot alone":         {".", true},
		"space":               {"truck 1", false},
		"space at the end":    {"truck-1 ", false},
		"slash":               {"a/b", false},
		"quote":               {"a'b", false},
		"a letter with marks": {"trück", false},
		"Chinese":             {"无锡", false},
		"NUL":                 {"a\x00", false},
		"new line":            {"a\n", false},
		"a byte of no text":   {"a\xff", false},
		"backquote, after _":  {"a`", false},
		"at sign, before A":   {"@", false},
		"bracket, after Z":    {"[", false},
		"brace, after z":      {"{", false},
		"semicolon, after :":  {";", false},
		"comma, before -":     {",", false},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, telemetry.ValidName(c.text)) })
	}
}

func TestValidNameAcceptsSixtySixBytes(t *testing.T) {
	n := 0
	for b := range 256 {
		if telemetry.ValidName(string([]byte{byte(b)})) {
			n++
		}
	}
	assert.Equal(t, 26+26+10+4, n)
}

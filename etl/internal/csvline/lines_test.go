package csvline

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// readLines gives all lines as next gives them, each with its number.
func readLines(t *testing.T, l *Reader, most int) (got []string, err error) {
	t.Helper()
	offset := l.At.Offset
	for {
		b, err := l.Next(most)
		if err != nil {
			return got, err
		}
		if len(b.ends) == 0 || len(b.ends) > most {
			t.Fatalf("a block of %d lines, asked for %d", len(b.ends), most)
		}
		if b.from.Offset != offset {
			t.Fatalf("a block from %d, want %d", b.from.Offset, offset)
		}
		offset = l.At.Offset
		for number, line := range b.Lines() {
			got = append(got, fmt.Sprint(number, ":", line))
		}
	}
}

func TestLines(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var text strings.Builder
	var want []string
	for i := range 3000 {
		n := r.IntN(60)
		if i%500 == 499 {
			n = []int{BlockBytes - 1, BlockBytes, BlockBytes + 1, 3 * BlockBytes, telemetry.MaxRawLen, 2 * BlockBytes}[i/500]
		}
		line := strings.Repeat(string(rune('a'+i%26)), n)
		text.WriteString(line + "\n")
		if n >= BlockBytes { // with its end it doesn't fit the buffer
			line = line[:telemetry.MaxRawLen+1]
		}
		want = append(want, fmt.Sprint(i+1, ":", line))
	}
	whole := text.String()
	for name, in := range map[string]func(io.Reader) io.Reader{
		"plain":                     func(r io.Reader) io.Reader { return r },
		"halves":                    iotest.HalfReader,
		"error with the last bytes": iotest.DataErrReader,
	} {
		for _, most := range []int{1, 7, BlockLines} {
			for _, prompt := range []bool{false, true} {
				t.Run(fmt.Sprint(name, most, prompt), func(t *testing.T) {
					l := NewReader(in(strings.NewReader(whole)), Place{}, prompt)
					got, err := readLines(t, l, most)
					if err != io.EOF || !slices.Equal(got, want) {
						t.Errorf("%d lines and %v, want %d", len(got), err, len(want))
					}
					if at := (Place{int64(len(whole)), 3000}); l.At != at {
						t.Errorf("ended at %v, want %v", l.At, at)
					}
				})
			}
		}
	}
}

func TestLastLineWithoutEnd(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, c := range []struct {
		name string
		in   io.Reader
		want []string
		err  error
	}{
		{"whole stream", strings.NewReader("a\nb"), []string{"1:a", "2:b"}, io.EOF},
		{"broken stream", io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), []string{"1:a"}, broken},
		{"broken between lines", io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(broken)), []string{"1:a", "2:b"}, broken},
		{"broken in a long line", io.MultiReader(strings.NewReader("a\n"+strings.Repeat("b", 3*BlockBytes)), iotest.ErrReader(broken)), []string{"1:a"}, broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readLines(t, NewReader(c.in, Place{}, false), BlockLines)
			if !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
				t.Errorf("got %q, %v; want %q, %v", got, err, c.want, c.err)
			}
		})
	}
}

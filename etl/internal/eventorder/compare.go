package eventorder

import (
	"bytes"
	"cmp"
	"encoding/binary"
)

// compare orders two encoded entries.
func (o Order) compare(a, b []byte) int {
	if c := cmp.Compare(a[0]&isRecord, b[0]&isRecord); c != 0 {
		return c
	}
	if a[0]&isRecord != 0 {
		byDevice := bytes.Compare(device(a), device(b))
		if byDevice != 0 && o == ByDevice {
			return byDevice
		}
		if c := cmp.Compare(timeMs(a), timeMs(b)); c != 0 {
			return c
		}
		if byDevice != 0 {
			return byDevice
		}
	}
	return compareRest(a, b)
}

// compareRest orders two encoded entries of equal device and time, or two rejected ones.
func compareRest(a, b []byte) int {
	if c := compareUint64(a, b, atHash); c != 0 {
		return c
	}
	le := binary.LittleEndian
	if c := cmp.Compare(le.Uint32(a[atOrigin:]), le.Uint32(b[atOrigin:])); c != 0 {
		return c
	}
	return compareUint64(a, b, atPosition)
}

func timeMs(e []byte) int64 { return int64(binary.LittleEndian.Uint64(e[atTime:])) }

func device(e []byte) []byte {
	n := binary.LittleEndian.Uint32(e[atDevice-4:])
	return e[atDevice:][:n]
}

func compareUint64(a, b []byte, at int) int {
	le := binary.LittleEndian
	return cmp.Compare(le.Uint64(a[at:]), le.Uint64(b[at:]))
}

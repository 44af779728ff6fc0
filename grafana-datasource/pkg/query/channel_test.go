package query

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestChannelRoundTrip(t *testing.T) {
	speed := 5.0
	for _, q := range []*Latest{
		{},
		{VehicleFilter: VehicleFilter{States: []string{"moving"}, MinSpeedKmh: &speed}, Common: Common{Limit: 7}},
		{Common: Common{Filters: []Filter{{Key: "zone", Operator: "=", Value: "a"}}}},
	} {
		channel, ok := Channel("uid", "live", q)
		require.True(t, ok)
		path, found := strings.CutPrefix(channel, "ds/uid/")
		require.True(t, found)
		got, err := ParseChannel(path)
		require.NoError(t, err)
		assert.Equal(t, []string{"live"}, got.Fleets)
		assert.Equal(t, q.VehicleFilter, got.VehicleFilter)
		assert.Equal(t, q.Limit, got.Limit)
		require.Len(t, got.Filters, len(q.Filters))
	}
	channel, _ := Channel("uid", "live", &Latest{})
	assert.Equal(t, "ds/uid/fleet/bGl2ZQ", channel)
}

func TestChannelNamesAreShort(t *testing.T) {
	q := &Latest{}
	for range 20 {
		q.Zones = append(q.Zones, "a-geofence")
	}
	_, ok := Channel("uid", "live", q)
	assert.False(t, ok)
}

func TestParseChannelRejectsInvalidPaths(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	for path, want := range map[string]string{
		"fleet":                          "use fleet/FLEET",
		"other/bGl2ZQ":                   "use fleet/FLEET",
		"fleet/bGl2ZQ/e30/x":             "use fleet/FLEET",
		"fleet/%%%":                      "the fleet is not base64",
		"fleet/" + encode([]byte("a b")): `fleet "a b": a name has`,
		"fleet/bGl2ZQ/%%%":               "the filter is not base64",
		"fleet/bGl2ZQ/bm9wZQ":            "the filter is not JSON",
		"fleet/bGl2ZQ/" + encode([]byte(`{"s":["flying"]}`)):                                `state "flying": unknown`,
		"fleet/bGl2ZQ/" + encode([]byte(`{"l":-1}`)):                                        "limit -1",
		"fleet/bGl2ZQ/" + encode([]byte(`{"f":[{"key":"a","operator":"=~","value":"("}]}`)): "filter a",
	} {
		_, err := ParseChannel(path)
		require.ErrorContains(t, err, want, path)
	}
}

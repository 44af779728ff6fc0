package executor

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

func TestEqualQueriesFilterWhatTheyShare(t *testing.T) {
	shared := cassandra.Result{Columns: []cassandra.ResultColumn{{Name: "zone", Type: "text"}}}
	for i := range 1000 {
		shared.Rows = append(shared.Rows, []any{[]string{"depot", "port"}[i%2]})
	}
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			if rows := matchRows([]query.Filter{{Key: "zone", Operator: "=", Value: "port"}}, shared); len(rows) != 500 {
				return fmt.Errorf("%d rows pass", len(rows))
			}
			return nil
		})
	}
	assert.NoError(t, g.Wait())
	assert.Equal(t, [][]any{{"depot"}, {"port"}, {"depot"}}, shared.Rows[:3], "for whoever comes next")
	assert.Len(t, matchRows(nil, shared), 1000)
}

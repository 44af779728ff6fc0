package app

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestHealthAsksTheProcessThatRunsHere(t *testing.T) {
	status, asked := http.StatusOK, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"reason":"too few replicas"}`))
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	health := func(address string) (int, string) {
		t.Setenv("ETL_METRICS_ADDRESS", address)
		var out, err bytes.Buffer
		code := Run(t.Context(), []string{"health"}, Streams{Out: &out, Err: &err})
		return code, err.String()
	}

	code, _ := health(address)
	assert.Zero(t, code)
	assert.Equal(t, "/-/ready", asked)

	code, _ = health(address[strings.LastIndex(address, ":"):]) // as the server has it: every address
	assert.Zero(t, code)

	status = http.StatusServiceUnavailable
	code, said := health(address)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, said, "not ready: ")
	assert.Contains(t, said, "too few replicas")

	server.Close()
	code, said = health(address)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, said, "connection refused")

	code, said = health("")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, said, "ETL_METRICS_ADDRESS")
}

package app

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
)

// operations starts a server and returns a function that sends it a request.
func operations(t *testing.T, o operationsOptions) (request func(method, path string) (status int, body string)) {
	t.Helper()
	o.Address, o.Gatherer = "127.0.0.1:0", prometheus.NewRegistry()
	logger, _ := test.NewNullLogger()
	s, err := newOperationsServer(o, logger)
	require.NoError(t, err)
	s.Start()
	t.Cleanup(s.Stop)
	return func(method, path string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr().String()+path, nil)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, strings.TrimSpace(string(body))
	}
}

func TestReadyReportsTheReason(t *testing.T) {
	var failure error
	request := operations(t, operationsOptions{Ready: func(context.Context) error { return failure }})
	status, body := request(http.MethodGet, "/-/ready")
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"status":"ok"}`, body)
	failure = errors.New("cassandra has not been reached yet")
	status, body = request(http.MethodGet, "/-/ready")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.JSONEq(t, `{"status":"unavailable","reason":"cassandra has not been reached yet"}`, body)
	status, _ = request(http.MethodGet, "/-/healthy")
	require.Equal(t, http.StatusOK, status)
}

func TestReloadByRequest(t *testing.T) {
	status, body := operations(t, operationsOptions{})(http.MethodPost, "/-/reload")
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, body, "ETL_RELOAD_ENABLED=true")

	var failure error
	reloads := 0
	request := operations(t, operationsOptions{Reload: func() error { reloads++; return failure }})
	status, _ = request(http.MethodPost, "/-/reload")
	require.Equal(t, http.StatusOK, status)
	failure = errors.New("rules.yml line 3: unknown field")
	status, body = request(http.MethodPost, "/-/reload")
	require.Equal(t, http.StatusInternalServerError, status)
	require.Equal(t, failure.Error(), body)
	status, _ = request(http.MethodGet, "/-/reload")
	require.Equal(t, http.StatusMethodNotAllowed, status)
	require.Equal(t, 2, reloads)
}

func TestProfilesAreOffByDefault(t *testing.T) {
	status, _ := operations(t, operationsOptions{})(http.MethodGet, "/debug/pprof/")
	require.Equal(t, http.StatusNotFound, status)
	status, _ = operations(t, operationsOptions{Pprof: true})(http.MethodGet, "/debug/pprof/")
	require.Equal(t, http.StatusOK, status)
}

func TestAddressInUseIsReported(t *testing.T) {
	logger, _ := test.NewNullLogger()
	s, err := newOperationsServer(operationsOptions{Address: "127.0.0.1:0", Gatherer: prometheus.NewRegistry()}, logger)
	require.NoError(t, err)
	defer s.listener.Close()
	_, err = newOperationsServer(operationsOptions{Address: s.Addr().String(), Gatherer: prometheus.NewRegistry()}, logger)
	require.ErrorContains(t, err, "ETL_METRICS_ADDRESS")
	require.ErrorContains(t, err, s.Addr().String())
}

package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// apiClient sends NDJSON to an HTTP API. Write returns once the records are durable there, and retries failures that may
// pass.
type apiClient struct {
	ctx        context.Context
	client     *retryablehttp.Client
	url, token string
	total      ingestAnswer
}

// ingestAnswer is the answer of the API to one request.
type ingestAnswer struct{ Accepted, Duplicates, Rejected int }

func newAPIClient(ctx context.Context, url, token string) *apiClient {
	client := retryablehttp.NewClient()
	client.Logger, client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = nil, 60, 100*time.Millisecond, 5*time.Second
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler // keeps the last answer for the error message
	return &apiClient{ctx: ctx, client: client, url: url, token: token}
}

// Write implements io.Writer. Each call sends one request.
func (p *apiClient) Write(lines []byte) (int, error) {
	req, err := retryablehttp.NewRequestWithContext(p.ctx, http.MethodPost, p.url, lines)
	if err != nil {
		return 0, fmt.Errorf("--url %q: %w", p.url, err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	answer, err := p.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("send to %s: %w", p.url, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4<<20))
	if err != nil {
		return 0, fmt.Errorf("send to %s: read answer: %w", p.url, err)
	}
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusUnprocessableEntity { // 422: every record was rejected
		return 0, fmt.Errorf("send to %s: %s: %s", p.url, answer.Status, strings.TrimSpace(string(text[:min(len(text), 500)])))
	}
	var a ingestAnswer
	if err := json.Unmarshal(text, &a); err != nil {
		return 0, fmt.Errorf("send to %s: answer %q: %w", p.url, text, err)
	}
	p.total.Accepted += a.Accepted
	p.total.Duplicates += a.Duplicates
	p.total.Rejected += a.Rejected
	return len(lines), nil
}

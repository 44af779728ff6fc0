package app

import (
	"bytes"
	"compress/gzip"
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

	accepted, duplicates, rejected int
}

// ingestAnswer is the answer of the API to one request.
type ingestAnswer struct {
	Accepted   int `json:"accepted"`
	Duplicates int `json:"duplicates"`
	Rejected   int `json:"rejected"`
}

func newAPIClient(ctx context.Context, url, token string) *apiClient {
	client := retryablehttp.NewClient()
	client.Logger, client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = nil, 60, 100*time.Millisecond, 5*time.Second
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler // keeps the last answer for the error message
	return &apiClient{ctx: ctx, client: client, url: url, token: token}
}

// Write implements io.Writer. Each call sends one request.
func (p *apiClient) Write(lines []byte) (int, error) {
	var body bytes.Buffer
	compressed := gzip.NewWriter(&body)
	if _, err := compressed.Write(lines); err != nil {
		return 0, err
	}
	if err := compressed.Close(); err != nil {
		return 0, err
	}
	req, err := retryablehttp.NewRequestWithContext(p.ctx, http.MethodPost, p.url, body.Bytes())
	if err != nil {
		return 0, fmt.Errorf("--url %q: %w", p.url, err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Content-Encoding", "gzip")
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
	var a ingestAnswer
	switch answer.StatusCode {
	case http.StatusOK, http.StatusUnprocessableEntity: // 422: every record was rejected
		if err := json.Unmarshal(text, &a); err != nil {
			return 0, fmt.Errorf("send to %s: answer %q: %w", p.url, text, err)
		}
	default:
		return 0, fmt.Errorf("send to %s: %s: %s", p.url, answer.Status, strings.TrimSpace(string(text[:min(len(text), 500)])))
	}
	p.accepted, p.duplicates, p.rejected = p.accepted+a.Accepted, p.duplicates+a.Duplicates, p.rejected+a.Rejected
	return len(lines), nil
}

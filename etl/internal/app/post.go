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

// poster sends lines of NDJSON to an IoT API and returns from Write once they are durable there. It comes again for as
// long as that may help.
type poster struct {
	ctx        context.Context
	client     *retryablehttp.Client
	url, token string

	accepted, duplicates, rejected int
}

// posted is what an IoT API answers.
type posted struct {
	Accepted   int `json:"accepted"`
	Duplicates int `json:"duplicates"`
	Rejected   int `json:"rejected"`
}

func newPoster(ctx context.Context, url, token string) *poster {
	client := retryablehttp.NewClient()
	client.Logger, client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = nil, 60, 100*time.Millisecond, 5*time.Second
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler // so that the last answer can be told
	return &poster{ctx: ctx, client: client, url: url, token: token}
}

// Write implements io.Writer. Each call is a request of its own.
func (p *poster) Write(lines []byte) (int, error) {
	var body bytes.Buffer
	packed := gzip.NewWriter(&body)
	if _, err := packed.Write(lines); err != nil {
		return 0, err
	}
	if err := packed.Close(); err != nil {
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
	var a posted
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

package app

import (
	"context"
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"
)

// drawProgress draws a bar of the bytes read, with records, their rate and the time left.
func (p *program) drawProgress(ctx context.Context, x *parts, progress func() (done, total int64)) {
	_, all := progress()
	if all == 0 {
		all = -1 // a spinner
	}
	bar := progressbar.NewOptions64(all,
		progressbar.OptionSetWriter(p.Err), progressbar.OptionShowBytes(true), progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetWidth(30), progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetRenderBlankState(true))
	defer func() { _ = bar.Finish() }()
	started := time.Now()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		stored := x.pipeline.Metrics.Summary().Stored
		bar.Describe(fmt.Sprintf("%d records stored, %.0f/s", stored, float64(stored)/time.Since(started).Seconds()))
		if done, _ := progress(); all > 0 {
			_ = bar.Set64(min(done, all))
		} else {
			_ = bar.Add(1)
		}
	}
}

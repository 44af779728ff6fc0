package app

import (
	"context"
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"
)

// drawProgress draws a progress bar of the processed bytes, with the record rate and the remaining time.
func (p *program) drawProgress(ctx context.Context, x *parts, progress func() (done, total int64)) {
	_, all := progress()
	if all == 0 {
		all = -1 // a spinner
	}
	bar := progressbar.NewOptions64(all,
		progressbar.OptionSetWriter(p.Err), progressbar.OptionSetPredictTime(true),
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
		s, written := x.counts()
		bar.Describe(fmt.Sprintf("%d records written, %.0f/s", written, float64(written)/time.Since(started).Seconds()))
		if all > 0 {
			done, _ := processed(progress, s, written)
			_ = bar.Set64(min(done, all))
		} else {
			_ = bar.Add(1)
		}
	}
}

package probe

import "fmt"

// Seconds shows a duration in seconds to three digits.
func Seconds(s float64) string {
	switch {
	case s >= 10:
		return fmt.Sprintf("%.1f s", s)
	case s >= 1:
		return fmt.Sprintf("%.2f s", s)
	case s >= 0.1:
		return fmt.Sprintf("%.0f ms", s*1e3)
	case s >= 0.01:
		return fmt.Sprintf("%.1f ms", s*1e3)
	}
	return fmt.Sprintf("%.2f ms", s*1e3)
}

// Percent shows a share.
func Percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

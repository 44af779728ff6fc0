package app

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// With a goal that stays where it is, a process that holds more does nothing but collect.
func TestTheGoalOfMemoryFollowsWhatIsHeld(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	t.Setenv("GOMEMLIMIT", "") // which would be left
	require.NoError(t, os.Unsetenv("GOMEMLIMIT"))
	require.NoError(t, followLiveHeap(t.Context()))
	require.EqualValues(t, minMemoryLimit, debug.SetMemoryLimit(-1))
	held := make([]byte, 160<<20)
	runtime.GC()
	require.Eventually(t, func() bool { return debug.SetMemoryLimit(-1) >= 320<<20 }, 10*time.Second, 50*time.Millisecond)
	require.Less(t, debug.SetMemoryLimit(-1), int64(math.MaxInt64))
	runtime.KeepAlive(held)
}

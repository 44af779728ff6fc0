package chaos

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

func TestTunnelDelaysDropsAndCuts(t *testing.T) {
	if err := CanTunnel(); err != nil {
		testenv.Missing(t, testenv.Machine, err.Error())
	}
	if _, err := os.Stat("/run/netns/" + namespace(networkOfDC1)); err == nil {
		t.Fatal("the network namespaces of make chaos exist: wait until it ends, or remove them: ip netns list shows them")
	}
	tunnel, err := OpenTunnel(9)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, tunnel.Close()) })
	far := address(networkOfDC2).String() + ":9"
	in := func(network int, do func()) {
		if network == here {
			do()
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked: the thread changed its network
			there, err := os.Open("/run/netns/" + namespace(network))
			assert.NoError(t, err)
			assert.NoError(t, unix.Setns(int(there.Fd()), unix.CLONE_NEWNET))
			do()
		}()
		<-done
	}
	var l net.Listener
	in(networkOfDC2, func() {
		l, err = net.Listen("tcp4", far)
		assert.NoError(t, err)
	})
	require.NotNil(t, l)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("x"))
			c.Close()
		}
	}()
	connect := func(from int) (took time.Duration, err error) {
		in(from, func() {
			begun := time.Now()
			var c net.Conn
			if c, err = net.DialTimeout("tcp4", far, time.Second); err == nil {
				defer c.Close()
				_, err = c.Read(make([]byte, 1))
			}
			took = time.Since(begun)
		})
		return took, err
	}
	connects := func(from int, least, most time.Duration) {
		t.Helper()
		took, err := connect(from)
		require.NoError(t, err)
		assert.Greater(t, took, least)
		assert.Less(t, took, most)
	}
	const quick = 110 * time.Millisecond
	connects(networkOfDC1, 0, quick)
	tunnel.slow.Store(&slowness{delay: 60 * time.Millisecond, bytesPerSecond: 1 << 20})
	connects(networkOfDC1, 115*time.Millisecond, time.Second) // there and back
	connects(here, 0, quick)
	tunnel.slow.Store(&slowness{loss: 1, bytesPerSecond: 1 << 20})
	_, err = connect(networkOfDC1)
	require.Error(t, err, "all packets are lost")
	tunnel.slow.Store(nil)
	connects(networkOfDC1, 0, quick)

	connects(networkOfPeer, 0, quick)
	require.NoError(t, tunnel.cut())
	_, err = connect(networkOfPeer)
	require.ErrorIs(t, err, unix.ENETUNREACH, "the peer has no route")
	connects(networkOfDC1, 0, quick)
	require.NoError(t, tunnel.restore())
	connects(networkOfPeer, 0, quick)
}

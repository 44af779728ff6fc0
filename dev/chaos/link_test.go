package chaos

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

const inside = "FLEET_CHAOS_TEST_INSIDE"

func TestTunnelDelaysDropsAndCuts(t *testing.T) {
	if os.Getenv(inside) == "" {
		if err := CanTunnel(); err != nil {
			testenv.Missing(t, testenv.Machine, err.Error())
		}
		if _, err := os.Stat("/run/netns/" + networkOfDC1); err == nil {
			t.Fatal("the network namespaces of make chaos exist: wait until it ends, or remove them: ip netns list shows them")
		}
		t.Cleanup(func() { assert.NoError(t, RemoveNetworks()) })
		for _, name := range []string{networkOfDC1, networkOfDC2} {
			require.NoError(t, ip("netns", "add", name))
		}
		cmd := exec.CommandContext(t.Context(), "nsenter", "--net=/run/netns/"+networkOfDC1, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
		cmd.Env = append(os.Environ(), inside+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	tunnel, err := OpenTunnel(9)
	require.NoError(t, err)
	defer func() { assert.NoError(t, tunnel.Close()) }()
	far := Places[1].FirstAddress.String() + ":9"
	listening := make(chan net.Listener)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread changed its network
		there, err := os.Open("/run/netns/" + networkOfDC2)
		assert.NoError(t, err)
		assert.NoError(t, unix.Setns(int(there.Fd()), unix.CLONE_NEWNET))
		l, err := net.Listen("tcp4", far)
		assert.NoError(t, err)
		listening <- l
	}()
	l := <-listening
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
	connect := func() time.Duration {
		begun := time.Now()
		c, err := net.Dial("tcp4", far)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, err)
		return time.Since(begun)
	}
	assert.Less(t, connect(), 110*time.Millisecond)
	tunnel.Slow(60*time.Millisecond, 0, 0, 0)
	slow := connect()
	assert.Greater(t, slow, 115*time.Millisecond, "there and back")
	assert.Less(t, slow, time.Second)
	tunnel.Slow(0, 0, 1, 0)
	_, err = net.DialTimeout("tcp4", far, 100*time.Millisecond)
	require.Error(t, err, "all packets are lost")
	tunnel.Restore()
	assert.Less(t, connect(), 110*time.Millisecond)
	uid := os.Getuid()
	require.NoError(t, tunnel.Cut(uid))
	_, err = net.DialTimeout("tcp4", far, 100*time.Millisecond)
	require.Error(t, err, "the user has no route")
	require.NoError(t, tunnel.Reconnect(uid))
	connect()
	require.NoError(t, tunnel.Cut(uid+1))
	connect()
}

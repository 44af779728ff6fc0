package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

// The networks of the data centers: network namespaces with one TUN device each. Tunnel carries the packets between them. They are
// connected to no other network.
const (
	networkOfDC1 = "fleet-chaos-1" // also of fleet-etl, Prometheus and Alertmanager
	networkOfDC2 = "fleet-chaos-2"
	device       = "between"
)

// Places has the addresses of the data centers, as seen from the network of the first.
var Places = []cluster.Place{
	{FirstAddress: netip.AddrFrom4([4]byte{10, 77, 1, 1})},
	{FirstAddress: netip.AddrFrom4([4]byte{10, 77, 2, 1}), Network: networkOfDC2},
}

// CanTunnel returns an error that names what is missing to give each data center its own network.
func CanTunnel() error {
	if !isRoot() {
		return errors.New("it needs root")
	}
	for _, program := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("it needs the program %s: apt-get install iproute2 util-linux", program)
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("it needs TUN devices: %w", err)
	}
	return nil
}

// EnterNetwork creates the networks and executes this program in the first of them, with one more argument. It returns only if that
// fails.
func EnterNetwork(argument string) error {
	if err := RemoveNetworks(); err != nil {
		return err
	}
	for _, name := range []string{networkOfDC1, networkOfDC2} {
		if err := ip("netns", "add", name); err != nil {
			return errors.Join(err, RemoveNetworks())
		}
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return errors.Join(err, RemoveNetworks())
	}
	program, err := os.Executable()
	if err != nil {
		return errors.Join(err, RemoveNetworks())
	}
	args := append([]string{nsenter, "--net=/run/netns/" + networkOfDC1, program}, append(os.Args[1:], argument)...)
	return errors.Join(unix.Exec(nsenter, args, os.Environ()), RemoveNetworks())
}

// RemoveNetworks removes the names of the networks. The networks end with their last process.
func RemoveNetworks() error {
	for _, name := range []string{networkOfDC1, networkOfDC2} {
		if _, err := os.Stat("/run/netns/" + name); err != nil {
			continue
		}
		if err := ip("netns", "del", name); err != nil {
			return err
		}
	}
	return nil
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil { //nolint:noctx // it takes milliseconds
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Tunnel carries packets between the networks of the data centers. It implements Link in user space, because many kernels of
// containers and small machines lack netem.
type Tunnel struct {
	ends [2]*os.File
	cql  int // port of Cassandra
	done sync.WaitGroup

	mu             sync.Mutex
	delay, jitter  time.Duration
	loss           float64
	bytesPerSecond float64 // 0: no bound
}

// OpenTunnel connects the networks. The caller runs in the first one. cqlPort is the port that Cut closes.
func OpenTunnel(cqlPort int) (t *Tunnel, err error) {
	t = &Tunnel{cql: cqlPort}
	for i, p := range Places {
		if t.ends[i], err = openEnd(p.Network); err != nil {
			return nil, err
		}
		in := []string{}
		if p.Network != "" {
			in = []string{"-n", p.Network}
		}
		far := Places[1-i].FirstAddress
		for _, command := range [][]string{
			{"link", "set", "lo", "up"}, {"link", "set", device, "up"},
			{"addr", "add", p.FirstAddress.String() + "/24", "dev", device}, {"addr", "add", p.FirstAddress.Next().String() + "/24", "dev", device},
			{"route", "add", netip.PrefixFrom(far, 24).Masked().String(), "dev", device},
		} {
			if err := ip(append(in, command...)...); err != nil {
				return nil, err
			}
		}
	}
	// Rules of Cut come before the routes to local addresses, which the kernel looks up first by default.
	if err := errors.Join(ip("rule", "add", "pref", "100", "lookup", "local"), ip("rule", "del", "pref", "0")); err != nil {
		return nil, err
	}
	for i := range t.ends {
		t.done.Go(func() { t.carry(t.ends[i], t.ends[1-i]) })
	}
	return t, nil
}

// openEnd creates the device of a network; empty: the network of this process.
func openEnd(network string) (end *os.File, err error) {
	made := make(chan struct{})
	go func() {
		defer close(made)
		runtime.LockOSThread() // never unlocked: the thread changed its network, so it ends with the goroutine
		if network != "" {
			there, e := os.Open("/run/netns/" + network)
			if e == nil {
				e = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
				there.Close()
			}
			if e != nil {
				err = fmt.Errorf("enter network %s: %w", network, e)
				return
			}
		}
		fd, e := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if e == nil {
			var request *unix.Ifreq
			if request, e = unix.NewIfreq(device); e == nil {
				request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
				e = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
			}
		}
		if e != nil {
			err = fmt.Errorf("create a device in network %q: %w", network, e)
			return
		}
		end = os.NewFile(uintptr(fd), device)
	}()
	<-made
	return end, err
}

// Close disconnects the networks.
func (t *Tunnel) Close() error {
	err := errors.Join(t.ends[0].Close(), t.ends[1].Close())
	t.done.Wait()
	return err
}

// Slow implements Link.
func (t *Tunnel) Slow(delay, jitter time.Duration, loss, bytesPerSecond float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.delay, t.jitter, t.loss, t.bytesPerSecond = delay, jitter, loss, bytesPerSecond
}

// Restore implements Link.
func (t *Tunnel) Restore() { t.Slow(0, 0, 0, 0) }

// Cut implements Link. The rule covers established connections, too.
func (t *Tunnel) Cut(uid int) error { return ip(append([]string{"rule", "add"}, t.cutRule(uid)...)...) }

// Reconnect implements Link.
func (t *Tunnel) Reconnect(uid int) error {
	return ip(append([]string{"rule", "del"}, t.cutRule(uid)...)...)
}

func (t *Tunnel) cutRule(uid int) []string {
	return []string{"pref", "50", "uidrange", fmt.Sprintf("%d-%d", uid, uid), "ipproto", "tcp", "dport", fmt.Sprint(t.cql), "unreachable"}
}

// packet is a delayed packet.
type packet struct {
	data []byte
	due  time.Time
}

const maxDelayed = 4096 // packets per direction; further ones are dropped, as in a router

// carry moves packets from one end to the other, in order, until either is closed.
func (t *Tunnel) carry(from, to *os.File) {
	delayed := make(chan packet, maxDelayed)
	var arriving sync.WaitGroup
	arriving.Go(func() {
		for p := range delayed {
			time.Sleep(time.Until(p.due))
			_, _ = to.Write(p.data) // a failed write is a lost packet
		}
	})
	defer arriving.Wait()
	defer close(delayed)
	buffer := make([]byte, 1<<16)
	var free, last time.Time // when the link is free; when the latest packet arrives
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		t.mu.Lock()
		delay, lost, rate := t.delay, rand.Float64() < t.loss, t.bytesPerSecond
		if t.jitter > 0 {
			delay += time.Duration(rand.Int64N(int64(2*t.jitter))) - t.jitter
		}
		t.mu.Unlock()
		if lost {
			continue
		}
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		if rate > 0 {
			free = free.Add(time.Duration(float64(n) / rate * float64(time.Second)))
		}
		if due := free.Add(delay); due.After(last) {
			last = due
		}
		select {
		case delayed <- packet{append([]byte(nil), buffer[:n]...), last}:
		default:
		}
	}
}

package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

// The networks that Tunnel connects. All but the first, which is the one of this process, are network namespaces. Network i has the
// addresses 10.77.i.1 and 10.77.i.2.
const (
	here = iota
	networkOfDC1
	networkOfDC2
	networkOfPeer // of an instance that loses its route
	networks
)

func namespace(network int) string { return fmt.Sprintf("fleet-chaos-%d", network) }

func address(network int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, byte(network), 1}) }

// Places has the addresses of the data centers.
var Places = []cluster.Place{
	{FirstAddress: address(networkOfDC1), Network: namespace(networkOfDC1)},
	{FirstAddress: address(networkOfDC2), Network: namespace(networkOfDC2)},
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

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil { //nolint:noctx // it takes milliseconds
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Tunnel carries packets between the networks. Each network has one TUN device. It works in user space, because many kernels of
// containers and small machines lack netem.
type Tunnel struct {
	ends    [networks]*os.File
	cqlPort string
	slow    atomic.Pointer[slowness] // between the data centers; nil: none
	done    sync.WaitGroup
}

// slowness is how packets are slowed down.
type slowness struct {
	delay, jitter  time.Duration
	loss           float64 // share of the packets
	bytesPerSecond float64 // of each network; above 0
}

// OpenTunnel creates the networks and connects them. cqlPort is the port that Cut closes.
func OpenTunnel(cqlPort uint16) (*Tunnel, error) {
	t := &Tunnel{cqlPort: fmt.Sprint(cqlPort)}
	if err := removeNetworks(); err != nil { // left over from a run that was killed
		return nil, err
	}
	for network := range t.ends {
		if err := t.open(network); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	for network := range t.ends {
		t.done.Go(func() { t.carry(network) })
	}
	return t, nil
}

// open creates the device of a network, and the network unless it is the one of this process.
func (t *Tunnel) open(network int) error {
	device := fmt.Sprintf("fleetchaos%d", network)
	request, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("create TUN device %s: %w", device, errors.Join(err, unix.Close(fd)))
	}
	t.ends[network] = os.NewFile(uintptr(fd), device) // only now can its reads be interrupted
	inside := []string{}
	if network != here {
		inside = []string{"-n", namespace(network)}
		if err := errors.Join(ip("netns", "add", namespace(network)), ip("link", "set", device, "netns", namespace(network))); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"}, {"link", "set", device, "up"},
		{"addr", "add", address(network).String() + "/16", "dev", device}, {"addr", "add", address(network).Next().String() + "/16", "dev", device},
	} {
		if err := ip(append(inside, args...)...); err != nil {
			return err
		}
	}
	return nil
}

// removeNetworks removes the names of the networks. The networks end with their last process.
func removeNetworks() (err error) {
	for network := here + 1; network < networks; network++ {
		if _, e := os.Stat("/run/netns/" + namespace(network)); e == nil {
			err = errors.Join(err, ip("netns", "del", namespace(network)))
		}
	}
	return err
}

// Close disconnects and removes the networks.
func (t *Tunnel) Close() error {
	var errs []error
	for _, end := range t.ends {
		if end != nil {
			errs = append(errs, end.Close())
		}
	}
	t.done.Wait()
	return errors.Join(append(errs, removeNetworks())...)
}

// cut leaves the network of the peer without a route to Cassandra, also for established connections, until restore.
func (t *Tunnel) cut() error     { return t.changeRoute("add") }
func (t *Tunnel) restore() error { return t.changeRoute("del") }

func (t *Tunnel) changeRoute(command string) error {
	return ip("-n", namespace(networkOfPeer), "rule", command, "pref", "50", "ipproto", "tcp", "dport", t.cqlPort, "unreachable")
}

// packet is a delayed packet.
type packet struct {
	data []byte
	to   *os.File
	due  time.Time
}

const maxDelayed = 4096 // packets per network; further ones are dropped, as in a router

// carry moves the packets from one network to the others, in order, until the tunnel is closed.
func (t *Tunnel) carry(from int) {
	delayed := make(chan packet, maxDelayed)
	var arriving sync.WaitGroup
	arriving.Go(func() {
		for p := range delayed {
			time.Sleep(time.Until(p.due))
			_, _ = p.to.Write(p.data) // a failed write is a lost packet
		}
	})
	defer arriving.Wait()
	defer close(delayed)
	buffer := make([]byte, 1<<16)
	var free, last time.Time // when the link is free; when the latest packet arrives
	for {
		n, err := t.ends[from].Read(buffer)
		if err != nil {
			return
		}
		if n < 20 || buffer[0]>>4 != 4 || int(buffer[18]) >= networks {
			continue // not IPv4, or not to an address 10.77.network.*
		}
		to, now, delay := int(buffer[18]), time.Now(), time.Duration(0)
		if free.Before(now) {
			free = now
		}
		if s := t.slow.Load(); s != nil && from != here && to != here {
			if rand.Float64() < s.loss {
				continue
			}
			delay = s.delay + time.Duration((2*rand.Float64()-1)*float64(s.jitter))
			free = free.Add(time.Duration(float64(n) / s.bytesPerSecond * float64(time.Second)))
		}
		if due := free.Add(delay); due.After(last) {
			last = due
		}
		select {
		case delayed <- packet{append([]byte(nil), buffer[:n]...), t.ends[to], last}:
		default:
		}
	}
}

package process

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Child is a program that ends with whoever started it, however that ends.
type Child struct {
	Process *os.Process
	Done    chan struct{} // closed when it has ended
	Err     error         // how it ended, once Done is closed; nil for exit status 0
}

// StartChild starts a program that is told to stop when we are killed.
func StartChild(cmd *exec.Cmd) (*Child, error) {
	// A group of its own: Ctrl-C is for us, who then stop things in order.
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGTERM
	c := &Child{Done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when the thread that started the child ends
		defer close(c.Done)
		err := cmd.Start()
		c.Process = cmd.Process
		started <- err
		if err == nil {
			c.Err = cmd.Wait()
		}
	}()
	return c, <-started
}

// Stop asks the program to end in order, and kills it when that takes longer than patience.
func (c *Child) Stop(patience time.Duration) error {
	_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.Done:
		return c.Err
	case <-time.After(patience):
		c.Kill()
		return errors.New("it had not ended " + patience.String() + " after it was asked to, and was killed")
	}
}

// Kill ends the program at once, as a crash does.
func (c *Child) Kill() {
	_ = c.Process.Kill()
	<-c.Done
}

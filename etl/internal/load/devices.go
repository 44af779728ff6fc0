package load

// devices is a bounded memory of devices: two generations, of which the older is forgotten when the younger is full.
// What is forgotten is read from the store when the device comes back, so a device stays while writes that say where
// it is are under way.
type devices struct {
	half       int
	young, old map[string]*device
	settled    func() int64 // the window up to which, inclusive, everything is durable
}

func newDevices(kept int, settled func() int64) *devices {
	return &devices{half: max(1, kept/2), young: map[string]*device{}, old: map[string]*device{}, settled: settled}
}

// touch gives the device when it is known, and keeps it known. window is the one that it is met in.
func (s *devices) touch(id string, window int64) *device {
	d := s.young[id]
	if d == nil {
		if d = s.old[id]; d == nil {
			return nil
		}
		s.insert(d)
	}
	d.window = window
	return d
}

func (s *devices) put(id string, window int64) *device {
	d := &device{id: id, window: window}
	s.insert(d)
	return d
}

func (s *devices) insert(d *device) {
	if len(s.young) >= s.half {
		forgotten, settled := s.old, s.settled()
		s.old, s.young = s.young, make(map[string]*device)
		for id, f := range forgotten {
			if f.window > settled && s.old[id] == nil {
				s.old[id] = f
			}
		}
	}
	s.young[d.id] = d
}

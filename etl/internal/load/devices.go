package load

// devices is a bounded memory of devices: two generations, of which the older is forgotten when the younger is full.
// What is forgotten is read from the store when the device comes back.
type devices struct {
	half       int
	young, old map[string]*device
}

func newDevices(kept int) *devices {
	return &devices{half: max(1, kept/2), young: map[string]*device{}, old: map[string]*device{}}
}

// touch gives the device when it is known, and keeps it known.
func (s *devices) touch(id string) *device {
	if d := s.young[id]; d != nil {
		return d
	}
	d := s.old[id]
	if d != nil {
		s.insert(d)
	}
	return d
}

func (s *devices) put(id string) *device {
	d := &device{id: id}
	s.insert(d)
	return d
}

func (s *devices) insert(d *device) {
	if len(s.young) >= s.half {
		s.old, s.young = s.young, make(map[string]*device)
	}
	s.young[d.id] = d
}

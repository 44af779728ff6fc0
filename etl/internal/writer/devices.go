package writer

// devices is a bounded memory of devices in two generations. When the younger is full, the older is dropped. A dropped
// device is read from the store when it sends again, so a device stays in memory while its writes are in flight.
type devices struct {
	half       int
	young, old map[string]*device
	durable    func() uint64 // number of the batch up to which, inclusive, everything is durable
}

func newDevices(kept int, durable func() uint64) *devices {
	return &devices{half: max(1, kept/2), young: map[string]*device{}, old: map[string]*device{}, durable: durable}
}

// get returns the device if it is in memory, and keeps it there. batch is the number of the batch that needs it.
func (s *devices) get(id string, batch uint64) *device {
	d := s.young[id]
	if d == nil {
		if d = s.old[id]; d == nil {
			return nil
		}
		s.insert(d)
	}
	d.batch = batch
	return d
}

func (s *devices) put(id string, batch uint64) *device {
	d := &device{id: id, batch: batch}
	s.insert(d)
	return d
}

func (s *devices) insert(d *device) {
	if len(s.young) >= s.half {
		dropped, durable := s.old, s.durable()
		s.old, s.young = s.young, make(map[string]*device)
		for id, f := range dropped {
			if f.batch > durable && s.old[id] == nil {
				s.old[id] = f
			}
		}
	}
	s.young[d.id] = d
}

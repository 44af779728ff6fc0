package cassandra

// Statement is a statement that this package runs.
type Statement struct {
	Name    string // of its constant
	CQL     string
	Purpose string
}

// Table is the one that the statement reads or writes.
func (s Statement) Table() string {
	_, table := describe(s.CQL)
	return table
}

// Write tells whether the statement changes something.
func (s Statement) Write() bool {
	operation, _ := describe(s.CQL)
	return operation == "write"
}

// Statements are all that this package runs on the tables of the keyspace, by table. The data source runs others beside
// them, which people write.
var Statements = []Statement{
	{"selectLatest", selectLatest, "the newest fix of a device: a screen, the canary, a derivation that begins"},
	{"selectWriteTimes", selectWriteTimes, "what a writer must know about a device that it loads: fleet and write times"},
	{"insertLatest", insertLatest, "the newest fix of a device; the event time is the write time"},
	{"selectLatestFleet", selectLatestFleet, "the map of a fleet, one of its buckets; the look for silent vehicles"},
	{"insertLatestByFleet", insertLatestByFleet, "the newest fixes of a bucket of a fleet"},
	{"deleteLatestByFleet", deleteLatestByFleet, "a device that moved leaves the old fleet's map"},
	{"selectHistory", selectHistory, "a device's fixes of a day"},
	{"selectHistoryLimit", selectHistoryLimit, "a page of a device's track, a day of it, newest first"},
	{"selectTrack", selectTrack, "a day of a track for a panel, as columns"},
	{"selectPositions", selectPositions, "a day of a device in event order, to recompute or verify it"},
	{"insertHistory", insertHistory, "fixes of a device and day, up to 100 in one mutation"},

	{"selectDevices", selectDevices, "a page of a fleet's devices"},
	{"selectDeviceIDs", selectDeviceIDs, "every device of a fleet, to verify it"},
	{"insertDeviceStatus", insertDeviceStatus, "a device is new in a fleet, or has moved away"},
	{"insertDeviceSince", insertDeviceSince, "the first event of a device in a fleet"},
	{"selectReady", selectReady, "does the cluster answer at the level of writes"},
	{"selectFleets", selectFleets, "the list of fleets, one of its shards"},
	{"insertFleet", insertFleet, "a fleet is new"},
	{"selectGeofences", selectGeofences, "the zones of a fleet"},
	{"insertGeofence", insertGeofence, "zones of a fleet are as a file has them"},
	{"deleteGeofence", deleteGeofence, "a zone is no longer in the files"},

	{"selectFleetAlerts", selectFleetAlerts, "alerts of a day and severity in a range of time"},
	{"selectFleetAlertsLimit", selectFleetAlertsLimit, "the same, the newest of them"},
	{"insertAlertResolved", insertAlertResolved, "an alert is resolved by hand"},
	{"insertFleetAlert", insertFleetAlert, "an alert and its values"},
	{"insertFleetAlertEnd", insertFleetAlertEnd, "whether it has ended; in one mutation with insertFleetAlert"},
	{"deleteFleetAlert", deleteFleetAlert, "a late record removed an alert, or its severity rose"},
	{"selectDeviceAlerts", selectDeviceAlerts, "alerts of a device by months, for a derivation anew"},
	{"insertDeviceAlert", insertDeviceAlert, "an alert, among its device's"},
	{"deleteDeviceAlert", deleteDeviceAlert, "a late fix took an alert back"},
	{"selectOpenAlerts", selectOpenAlerts, "what is open in a fleet: for Alertmanager, every 30 s"},
	{"selectOpenAlertsOfDevice", selectOpenAlertsOfDevice, "open alerts of a device, when it is loaded"},
	{"insertOpenAlert", insertOpenAlert, "an alert was raised or has become graver"},
	{"deleteOpenAlert", deleteOpenAlert, "an alert has ended"},

	{"selectTrips", selectTrips, "trips and stops of a device by months, for a derivation anew"},
	{"insertTrip", insertTrip, "trips and stops of a device, one mutation a month"},
	{"deleteTrip", deleteTrip, "a late fix took a trip back"},
	{"selectHours", selectHours, "what every device adds to an hour of a fleet, to sum it"},
	{"insertHour", insertHour, "what devices add to an hour, up to 100 in one mutation"},
	{"deleteHour", deleteHour, "a device adds nothing to an hour any more"},
	{"selectAnalytics", selectAnalytics, "the hourly figures of a fleet's day, for a screen"},
	{"selectHourRows", selectHourRows, "the same with every column, to verify them"},
	{"insertAnalytics", insertAnalytics, "the figures of a fleet's hour"},
	{"deleteAnalytics", deleteAnalytics, "nobody adds to an hour any more"},
	{"selectLastDeviceDay", selectLastDeviceDay, "the state from which the processor continues a device"},
	{"selectDeviceDays", selectDeviceDays, "its states from a day on, to recompute"},
	{"updateDeviceDay", updateDeviceDay, "the state of a device at the end of a day"},

	{"selectInstances", selectInstances, "running instances, every 5 s"},
	{"updateHeartbeat", updateHeartbeat, "heartbeat, every 5 s"},
	{"addSharedDevices", addSharedDevices, "adds devices that another instance also received records of"},
	{"removeSharedDevices", removeSharedDevices, "clears shared devices once their instance has read them"},
	{"deleteInstance", deleteInstance, "an instance has ended"},
	{"selectClaims", selectClaims, "which other instances claim a device, when it is loaded"},
	{"updateClaim", updateClaim, "records of a device may be stored before their derived rows"},
	{"deleteClaim", deleteClaim, "all derived rows of a device are stored"},
	{"selectClaimsByInstance", selectClaimsByInstance, "claims of an instance that is down, one of its buckets"},
	{"insertClaimByInstance", insertClaimByInstance, "the same claim by instance"},
	{"deleteClaimByInstance", deleteClaimByInstance, "the same, deleted"},
}

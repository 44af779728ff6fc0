package app

// maxrssUnit is the unit of getrusage's peak memory, in bytes.
const maxrssUnit = 1024

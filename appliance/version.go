package appliance

// Version is set at link time from `git describe` (see Makefile).
var Version = "dev"

// Command gotgt serves one file as LUN 0 with gostor/gotgt, an iSCSI target
// written in Go, so that `make bench` can measure petal beside it.
//
// It is a module of its own: petal's go.mod does not carry gotgt's
// dependencies. gotgt listens on every address of the port, has no way to
// change that, and offers write-back caching only (WCE=1): a write is
// acknowledged from the page cache and SYNCHRONIZE CACHE is an fdatasync.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	_ "github.com/gostor/gotgt/pkg/port/iscsit"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore"

	"github.com/gostor/gotgt/pkg/config"
	"github.com/gostor/gotgt/pkg/scsi"
	"github.com/sirupsen/logrus"
)

// deviceID ties the storage to the LUN inside gotgt; initiators never see it.
const deviceID = 1000

func main() {
	file := flag.String("file", "", "the file to serve; it must exist and has the size of the LUN")
	port := flag.Int("port", 3263, "TCP port")
	target := flag.String("target", "iqn.2016-09.com.gotgt:bench", "target name")
	flag.Parse()
	if err := serve(*file, *port, *target); err != nil {
		fmt.Fprintln(os.Stderr, "gotgt:", err)
		os.Exit(1)
	}
}

// serve runs until SIGINT or SIGTERM.
func serve(file string, port int, target string) error {
	if file == "" {
		return errors.New("--file is missing")
	}
	logrus.SetLevel(logrus.ErrorLevel)
	cfg := &config.Config{
		Storages:     []config.BackendStorage{{DeviceID: deviceID, Path: "file:" + file, Online: true, BlockShift: 9}},
		ISCSIPortals: []config.ISCSIPortalInfo{{ID: 0, Portal: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}},
		ISCSITargets: map[string]config.ISCSITarget{
			target: {TPGTs: map[string][]uint64{"1": {0}}, LUNs: map[string]uint64{"0": deviceID}},
		},
	}
	if err := scsi.InitSCSILUMap(cfg); err != nil {
		return err
	}
	driver, err := scsi.NewTargetDriver("iscsi", scsi.NewSCSITargetService())
	if err != nil {
		return err
	}
	if err := driver.NewTarget(target, cfg); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- driver.Run(port) }()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	select {
	case err := <-ended:
		return err
	case <-signals:
		return nil
	}
}

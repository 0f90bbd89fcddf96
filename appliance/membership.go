package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"

	"petal/appliance/config"
	"petal/cluster"
	"petal/cluster/meta"
)

// InitCluster makes the node of conf, which must not be running, the first of a
// cluster. A node that has run alone keeps its disks.
func InitCluster(ctx context.Context, conf *config.Config, name string, logTo io.Writer) error {
	opt, err := setUp(conf, logTo)
	if err != nil {
		return err
	}
	return explainOpen(cluster.Init(ctx, opt, name))
}

// JoinCluster makes the node of conf, which must not be running and has never
// been in a cluster, a member of the cluster that made the token.
func JoinCluster(ctx context.Context, conf *config.Config, token string, logTo io.Writer) error {
	opt, err := setUp(conf, logTo)
	if err != nil {
		return err
	}
	err = cluster.Join(ctx, opt, token)
	if errors.Is(err, context.DeadlineExceeded) {
		err = problem{fmt.Errorf("no node of the cluster has answered: %w", err), "are the nodes that the token names up, and can this machine reach their cluster.listen addresses?"}
	}
	if err = explainOpen(err); err != nil && meta.HintOf(err) == "" {
		err = problem{err, "`petal cluster token` on a node of the cluster makes another token"}
	}
	return err
}

// setUp is what init and join need of a configuration.
func setUp(conf *config.Config, logTo io.Writer) (cluster.Options, error) {
	if err := CheckConfig(conf, "configuration"); err != nil {
		return cluster.Options{}, err
	}
	if conf.Cluster.Listen == "" {
		return cluster.Options{}, problem{errors.New("the node has no address for other nodes"), "set listen in the [cluster] table of petal.toml, or give --listen ADDRESS:PORT with --dir"}
	}
	return nodeOptions(conf, newLog(conf.Log, logTo)), nil
}

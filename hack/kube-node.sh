#!/usr/bin/env bash
# A real Kubernetes of one node on this machine, without Docker and without a registry.
#
#   hack/kube-node.sh up FOLDER           starts it and prints the kubeconfig; FOLDER keeps its state and logs
#   hack/kube-node.sh load FOLDER FILE    imports a tar file of images
#   hack/kube-node.sh run FOLDER COMMAND  runs a command where the cluster can be reached, with KUBECONFIG and kubectl
#   hack/kube-node.sh down FOLDER         stops and removes all of it, except for the logs
#
# Everything runs in a network namespace named after FOLDER, from where nothing outside this machine can be reached, and in
# a cgroup of the same name. It needs root, and containerd, runc and the CNI plugins.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
die() { echo "hack/kube-node.sh: $*" >&2; exit 1; }
(($# >= 2)) || die "usage: up|load|run|down FOLDER, see the head of this script"
[[ $(uname -s) == Linux && $(id -u) == 0 ]] || die "a node needs root on Linux; set KUBECONFIG to use a cluster that exists"

action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
shift 2
name=$(basename "$dir")
# Addresses of the range for benchmarks (RFC 2544), which are nobody's.
address=198.18.255.1 pods=198.18.0.0/24 services=198.19.0.0/16 first_service=198.19.0.1
socket="$dir/containerd.sock"

# A plain nsenter: `ip netns exec` would also give it a /sys without cgroups.
inside() { nsenter --net="/run/netns/$name" "$@"; }
images() { ctr --address "$socket" --namespace k8s.io "$@"; }

# start NAME COMMAND... runs a program in the background, and writes its process id down.
start() {
  local program=$1
  shift
  setsid nsenter --net="/run/netns/$name" "$@" >>"$dir/log/$program.log" 2>&1 </dev/null 8>&- &
  echo $! >"$dir/pid/$program"
}

# until_true SECONDS WHAT COMMAND... waits until the command succeeds.
until_true() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  echo "waiting for $what" >&2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || { tail -n 3 "$dir"/log/*.log >&2; die "$what did not come up; the logs are in $dir/log"; }
    sleep 0.2
  done
}

# install_missing gets the Debian packages of what a node consists of.
install_missing() {
  local missing=() need
  for need in containerd:containerd runc:runc iptables:iptables nft:nftables conntrack:conntrack ip:iproute2 openssl:openssl pgrep:procps; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
  done
  [[ -x /usr/lib/cni/bridge ]] || missing+=(containernetworking-plugins)
  ((${#missing[@]} > 0)) || return 0
  command -v apt-get >/dev/null || die "install ${missing[*]} first"
  echo "installing ${missing[*]}" >&2
  apt-get update -q >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >&2
}

make_network() {
  ip netns add "$name"
  inside ip link set lo up
  # The node's address lives on one end of a pair whose other end is in the same namespace: a link that leads nowhere.
  inside ip link add node0 type veth peer name node1
  inside ip addr add "$address/32" dev node0
  inside ip link set node0 up
  inside ip link set node1 up
  inside ip route add default dev node0
  inside sysctl -qw net.ipv4.ip_forward=1
}

# certificate NAME SUBJECT [ALTERNATIVE NAMES]
certificate() {
  openssl req -new -newkey rsa:2048 -nodes -keyout "$1.key" -subj "$2" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" \
    -extfile <(printf 'extendedKeyUsage=serverAuth,clientAuth\n%s' "${3:+subjectAltName=$3}") 2>/dev/null
}

# kubeconfig FILE CERTIFICATE writes one that needs no other file.
kubeconfig() {
  cat >"$1" <<END
apiVersion: v1
kind: Config
current-context: node
contexts: [{name: node, context: {cluster: node, user: user}}]
clusters: [{name: node, cluster: {server: "https://$address:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: user, user: {client-certificate-data: $(base64 -w0 "$2.crt"), client-key-data: $(base64 -w0 "$2.key")}}]
END
}

make_credentials() {
  openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=ca -days 30 -out ca.crt 2>/dev/null
  openssl genrsa -out sa.key 2048 2>/dev/null
  openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  certificate apiserver /CN=kube-apiserver "IP:$address,IP:127.0.0.1,IP:$first_service,DNS:kubernetes,DNS:kubernetes.default.svc"
  certificate admin /O=system:masters/CN=admin
  certificate node /O=system:nodes/CN=system:node:node "IP:$address,DNS:node"
  kubeconfig "$dir/kubeconfig" admin
  kubeconfig "$dir/kubelet.kubeconfig" node
}

start_control_plane() {
  start etcd "$bin/etcd" --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn
  start kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address=$address --service-cluster-ip-range=$services --authorization-mode=Node,RBAC \
    --client-ca-file=ca.crt --tls-cert-file=apiserver.crt --tls-private-key-file=apiserver.key \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
    --kubelet-client-certificate=admin.crt --kubelet-client-key=admin.key --kubelet-preferred-address-types=InternalIP
  until_true 120 kube-apiserver inside "$bin/kubectl" --kubeconfig "$dir/kubeconfig" get --raw /readyz
  start kube-controller-manager "$bin/kube-controller-manager" --kubeconfig="$dir/kubeconfig" --leader-elect=false \
    --use-service-account-credentials --service-account-private-key-file=sa.key --root-ca-file=ca.crt
  start kube-scheduler "$bin/kube-scheduler" --kubeconfig="$dir/kubeconfig" --leader-elect=false
}

start_containerd() {
  mkdir -p "$dir/cni"
  cat >"$dir/cni/10-pods.conflist" <<END
{"cniVersion": "0.4.0", "name": "$name", "plugins": [{"type": "bridge", "bridge": "pods0", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$dir/cni/addresses", "subnet": "$pods", "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
  cat >"$dir/containerd.toml" <<END
version = 2
root = "$dir/containerd"
state = "$dir/run"
[grpc]
  address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "millrace.test/pause:1"
  # In a container of its own this machine may not be allowed to protect processes from the OOM killer.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
END
  start containerd containerd --config "$dir/containerd.toml"
  until_true 60 containerd images version
  CGO_ENABLED=0 go -C "$root/tools" build -o "$dir/pause" ./pause
  go -C "$root/tools" run ./image "$dir/pause.tar" "millrace.test/pause:1=$dir/pause"
  images images import "$dir/pause.tar" >/dev/null
}

start_node() {
  local controller
  for controller in /sys/fs/cgroup/*/; do
    [[ ! -f "$controller/cgroup.procs" ]] || mkdir -p "$controller/$name"
  done
  echo "nameserver $address" >"$dir/resolv.conf"
  cat >"$dir/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $dir/pki/ca.crt}}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [$address]
resolvConf: $dir/resolv.conf
tlsCertFile: $dir/pki/node.crt
tlsPrivateKeyFile: $dir/pki/node.key
containerRuntimeEndpoint: unix://$socket
podLogsDir: $dir/log/pods
cgroupDriver: cgroupfs
cgroupRoot: /$name
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
END
  start kubelet "$bin/kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$dir/kubelet.kubeconfig" --root-dir="$dir/kubelet" \
    --hostname-override=node --node-ip=$address
  cat >"$dir/kube-proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: node
clusterCIDR: $pods
clientConnection: {kubeconfig: $dir/kubeconfig}
conntrack: {maxPerCore: 0}
END
  start kube-proxy "$bin/kube-proxy" --config="$dir/kube-proxy.yaml"
  cat >"$dir/Corefile" <<END
. {
  bind $address
  errors
  kubernetes cluster.local {
    kubeconfig $dir/kubeconfig node
    ttl 5
  }
  cache 5
}
END
  start coredns "$bin/coredns" -conf "$dir/Corefile"
}

# make_volume gives the cluster one volume, for the store.
make_volume() {
  mkdir -p "$dir/volume"
  chown 65532:65532 "$dir/volume"
  inside "$bin/kubectl" --kubeconfig "$dir/kubeconfig" apply -f - >/dev/null <<END
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume}
spec: {capacity: {storage: 20Gi}, accessModes: [ReadWriteOnce], hostPath: {path: $dir/volume}}
END
}

up() {
  [[ ! -e "/run/netns/$name" ]] || die "$name is up, or was not stopped: hack/kube-node.sh down $dir"
  install_missing
  # It would lose its sockets under /var/lib/kubelet.
  ! pgrep -x kubelet >/dev/null || die "this machine is a node already; set KUBECONFIG to use its cluster"
  bin=$("$root/hack/kube-binaries.sh" node)
  # Half a node is of no use to anybody.
  trap '[[ $? == 0 ]] || down' EXIT
  rm -rf "$dir/log"
  mkdir -p "$dir"/{log,pid,pki}
  # A kubelet changes these for the whole machine.
  sysctl -e vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_max{keys,bytes} >"$dir/sysctl"
  cd "$dir/pki"
  make_network
  make_credentials
  start_control_plane
  start_containerd
  start_node
  until_true 120 "the node" inside "$bin/kubectl" --kubeconfig "$dir/kubeconfig" wait --for=condition=Ready node/node --timeout=2s
  make_volume
  echo "$dir/kubeconfig"
}

# stop PROGRAM ends one, and waits until it has ended.
stop() {
  local pid
  [[ -f "$dir/pid/$1" ]] || return 0
  pid=$(<"$dir/pid/$1")
  kill "$pid" 2>/dev/null || true
  for ((i = 0; i < 50; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.2
  done
  kill -9 "$pid" 2>/dev/null || true
  rm "$dir/pid/$1"
}

# processes prints the ids of the processes in the cgroup: containers and what holds them.
processes() { cat $(find /sys/fs/cgroup -path "/sys/fs/cgroup/*/$name/*" -name cgroup.procs 2>/dev/null) /dev/null | sort -u; }

down() {
  local program task pid mount
  for program in kubelet kube-proxy coredns kube-scheduler kube-controller-manager; do stop "$program"; done
  if [[ -S "$socket" ]]; then
    for task in $(images task list -q 2>/dev/null); do images task delete --force "$task" >/dev/null 2>&1 || true; done
  fi
  for pid in $(processes); do kill -9 "$pid" 2>/dev/null || true; done
  for program in containerd kube-apiserver etcd; do stop "$program"; done
  # The deepest first. A mount in the namespace of a process that is just ending may be busy for a moment.
  for mount in $(awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r); do umount -l "$mount"; done
  for ((i = 0; i < 50; i++)); do
    find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup/*/$name*" -exec rmdir {} + 2>/dev/null || true
    [[ -n $(find /sys/fs/cgroup -maxdepth 2 -name "$name" 2>/dev/null) ]] || break
    sleep 0.2
  done
  [[ ! -e "/run/netns/$name" ]] || ip netns del "$name"
  [[ ! -f "$dir/sysctl" ]] || sysctl -qp "$dir/sysctl"
  # What containerd and kubelet keep in places that cannot be chosen.
  rm -f /var/lib/cni/results/"$name"-* /var/lib/kubelet/device-plugins/{kubelet.sock,DEPRECATION}
  rmdir -p --ignore-fail-on-non-empty /var/lib/cni/results /var/lib/kubelet/device-plugins /run/containerd/runc/k8s.io 2>/dev/null || true
  find "$dir" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} +
}

case $action in
  up) up ;;
  load) images images import "$1" >/dev/null ;;
  run)
    bin=$("$root/hack/kube-binaries.sh" node)
    KUBECONFIG="$dir/kubeconfig" PATH="$bin:$PATH" inside "$@"
    ;;
  down) down ;;
  *) die "unknown: $action" ;;
esac

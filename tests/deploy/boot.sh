# Becomes a machine of its own: run by machine.py as the first process of fresh namespaces (process, mount,
# network, IPC, host name, cgroup). Everything written inside lands in a tmpfs; the root below is only read.
#
#   PLACE     an empty folder for the machine's root
#   CHECKOUT  seen inside as /mnt/checkout, read-only
#   VENV      seen inside as /mnt/venv, read-only
#   CONSOLE   a terminal for systemd's own messages
set -eu

mount --make-rprivate /
mount -t tmpfs machine "$PLACE"
mkdir "$PLACE/upper" "$PLACE/work" "$PLACE/root"
mount -t overlay machine -o "lowerdir=/,upperdir=$PLACE/upper,workdir=$PLACE/work" "$PLACE/root"
cd "$PLACE/root"

# Units of the box below stay out: only what the test installs is to run.
rm -rf etc/systemd/system && mkdir etc/systemd/system
for unit in $UNWANTED; do ln -s /dev/null "etc/systemd/system/$unit"; done
echo machine > etc/hostname
: > etc/machine-id # systemd fills it in

mount -t proc proc proc
mount --rbind /sys sys
mount -t cgroup2 cgroup2 sys/fs/cgroup # hides the box's own; this namespace's tree is the machine's
for folder in run tmp dev mnt; do mount -t tmpfs -o mode=0755 machine "$folder"; done
chmod 1777 tmp
mkdir dev/pts dev/shm mnt/checkout mnt/venv
chmod 1777 dev/shm
for device in null zero full random urandom tty; do touch "dev/$device" && mount --bind "/dev/$device" "dev/$device"; done
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666,mode=0620
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console && mount --bind "$CONSOLE" dev/console
mount --bind "$CHECKOUT" mnt/checkout && mount -o remount,bind,ro mnt/checkout
mount --bind "$VENV" mnt/venv && mount -o remount,bind,ro mnt/venv
ip link set lo up
# Not chroot: the kernel makes no user namespace in one, and units ask for that.
mkdir mnt/below
pivot_root . mnt/below
umount --lazy /mnt/below && rmdir /mnt/below
mount --make-rshared /

exec env -i container=lxc TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --log-target=journal --log-level=info --show-status=yes

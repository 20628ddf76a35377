#!/bin/busybox sh
# First program where systemd runs: what an initial RAM disk does before it. It loads the modules that the root file
# system would load by name, and hands over to systemd: at once where the RAM disk is systemd's own, else in a root
# file system of its own, as Debian's does.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /root /sysroot
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t securityfs securityfs /sys/kernel/security
/bin/busybox --install -s /usr/bin
export PATH=/usr/bin
cat /etc/ima-policy > /sys/kernel/security/ima/policy
insmod /usr/lib/modules/e1000.ko
# QEMU's user network: the host's loopback is 10.0.2.2.
ifconfig lo up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
# systemd mounts it where the stub's variable says that it was measured; empty where the kernel has it built in.
[ -s /usr/lib/modules/efivarfs.ko ] && insmod /usr/lib/modules/efivarfs.ko
umount /sys/kernel/security
if [ -e /etc/initrd-release ]; then
    exec /usr/lib/systemd/systemd
fi
mount -t tmpfs -o mode=0755 root /sysroot
sh /usr/lib/assay/fill-root.sh
for folder in proc sys dev; do
    mount --move /$folder /sysroot/$folder
done
exec switch_root /sysroot /usr/lib/systemd/systemd

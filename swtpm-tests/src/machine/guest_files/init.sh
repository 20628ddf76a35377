#!/bin/busybox sh
# First program of the test machine: mounts, then runs what the host sends.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /var/lib /etc
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t securityfs securityfs /sys/kernel/security
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
if [ -f /etc/ima-policy ]; then
    cat /etc/ima-policy > /sys/kernel/security/ima/policy
fi
insmod /lib/modules/e1000.ko
ifconfig lo up
# QEMU's user network: the host's loopback is 10.0.2.2.
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
. /usr/lib/assay/agent.sh

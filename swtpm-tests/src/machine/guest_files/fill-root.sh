# Fills the root file system at /sysroot with what the initial RAM disk holds: one set of files serves both.
for path in bin etc lib lib64 sbin usr; do
    cp -a /$path /sysroot/
done
rm -f /sysroot/etc/initrd-release
mkdir -p /sysroot/proc /sysroot/sys /sysroot/dev /sysroot/run /sysroot/tmp /sysroot/root /sysroot/var

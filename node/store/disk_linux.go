package store

import "golang.org/x/sys/unix"

// networkFS names the network file system that dir lies on, if it is one.
func networkFS(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", err
	}
	switch uint32(st.Type) {
	case 0x6969:
		return "NFS", nil
	case 0x517b, 0xfe534d42, 0xff534d42:
		return "SMB", nil
	case 0x564c:
		return "NCP", nil
	case 0x5346414f:
		return "AFS", nil
	case 0x73757245:
		return "Coda", nil
	case 0x00c36400:
		return "Ceph", nil
	case 0x47504653:
		return "GPFS", nil
	}
	return "", nil
}

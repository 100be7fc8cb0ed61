"""Networks that tell people apart: aligned photographs of faces to embeddings, with weights from named sources."""

from voicestyle.face_networks.dlib_resnet import DlibResNet, fetch_dlib_resnet
from voicestyle.face_networks.mobileface import MobileFace, fetch_mobileface
from voicestyle.face_networks.network import FaceNetwork
from voicestyle.face_networks.npm_package import DEFAULT_CACHE

__all__ = ["DEFAULT_CACHE", "DlibResNet", "FaceNetwork", "MobileFace", "fetch_dlib_resnet", "fetch_mobileface"]

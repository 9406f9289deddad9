"""A ROS 2 node that classifies what a camera sees: ros2_node.py --ros-args -p bundle:=birds.edgefg.

Subscribes to ``image`` (sensor_msgs/Image) and publishes ``classification``
(vision_msgs/Classification) under the same header. Only the newest image is classified, and the
executor never waits. The part that needs no ROS is `edge_fg_tools.ros`.

Parameters: ``bundle`` (path), ``top_k`` (5), ``max_age`` (seconds that an image may wait, 0.5).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import edge_fg
from edge_fg_tools.ros import MessageClassifier

try:
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Classification, ObjectHypothesis
except ImportError as error:
    sys.exit(f"this needs ROS 2 with vision_msgs: source its setup file first ({error})")


class BirdNode(Node):
    """Topics and parameters."""

    def __init__(self) -> None:
        super().__init__("edge_fg")
        self.declare_parameter("bundle", "")
        self.declare_parameter("top_k", 5)
        self.declare_parameter("max_age", 0.5)
        bundle = self.get_parameter("bundle").value
        if not bundle:
            raise edge_fg.errors.UsageError(
                "usage: ros2_node.py --ros-args -p bundle:=birds.edgefg"
            )
        self.classifier = edge_fg.load(bundle)
        self.publisher = self.create_publisher(Classification, "classification", 10)
        self.messages = MessageClassifier(
            self.classifier,
            self.publish,
            warn=self.get_logger().warning,
            top_k=self.get_parameter("top_k").value,
            deadline=self.get_parameter("max_age").value,
        )
        self.create_subscription(Image, "image", self.messages.submit, qos_profile_sensor_data)

    def publish(self, header: Any, answers: Sequence[tuple[str, float]]) -> None:
        """Publish an answer; rclpy's publishers may be used from any thread."""
        message = Classification(header=header)
        message.results = [ObjectHypothesis(class_id=name, score=p) for name, p in answers]
        self.publisher.publish(message)


def main() -> None:
    """Run until ROS shuts down."""
    rclpy.init()
    try:
        node = BirdNode()
    except edge_fg.EdgeFGError as error:
        rclpy.shutdown()
        sys.exit(f"edge_fg: {error}")
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.classifier.close()
        node.get_logger().info(str(node.messages.counters))
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()

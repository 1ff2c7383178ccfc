// Posts an event with the SDK as it comes: java PostEvent.java URL KEY MODE ID. Prints the status.
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.http.HttpMessageFactory;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.charset.StandardCharsets;

class PostEvent {
    public static void main(String[] args) throws IOException {
        String json = "{\"dish\":\"Soufflé ☕\",\"prices\":[1,null,2.5]}";
        CloudEvent event = CloudEventBuilder.v1()
            .withId(args[3])
            .withSource(URI.create("/kitchen"))
            .withType("menu.changed")
            .withSubject("Käse 100 %")
            .withExtension("channel", "topic:menu")
            .withExtension("comexampleextension1", "value")
            .withData("application/json", json.getBytes(StandardCharsets.UTF_8))
            .build();
        HttpURLConnection connection = (HttpURLConnection) URI.create(args[0]).toURL().openConnection();
        connection.setRequestMethod("POST");
        connection.setDoOutput(true);
        connection.setRequestProperty("Authorization", "Bearer " + args[1]);
        var writer = HttpMessageFactory.createWriter(connection::setRequestProperty, body -> send(connection, body));
        if (args[2].equals("binary")) {
            writer.writeBinary(event);
        } else {
            writer.writeStructured(event, "application/cloudevents+json");
        }
        System.out.println(connection.getResponseCode());
    }

    private static void send(HttpURLConnection connection, byte[] body) {
        try (var out = connection.getOutputStream()) {
            if (body != null) {
                out.write(body);
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
